import { describe, expect, expectTypeOf, test } from 'vitest'
import { type Event, event, type Listeners } from '../../src/realtime/event.ts'

describe('event()', () => {
  const moved = event<{ id: number }>()('thing.moved', {
    topic: 'things',
    when: 'Now',
    payload: { id: 'which' },
  })
  const sold = event<{ id: number; price: string }>()('thing.sold', {
    topic: 'things',
    when: 'Now',
    payload: { id: 'which', price: 'for what' },
  })

  test('gives a frozen name, and what the docs say of it', () => {
    expect(moved).toEqual({
      name: 'thing.moved',
      topic: 'things',
      when: 'Now',
      payload: { id: 'which' },
    })
    expect(Object.isFrozen(moved)).toBe(true)
  })

  test('infers the type of the name, ties the type of the payload to it', () => {
    expectTypeOf(moved).toEqualTypeOf<Event<'thing.moved', { id: number }>>()
    expectTypeOf(moved.name).toEqualTypeOf<'thing.moved'>()
    expectTypeOf(sold).not.toExtend<Event<'thing.moved', { id: number }>>()
  })

  test('gives listeners of one event their type', () => {
    expectTypeOf<Listeners<typeof moved>>().toExtend<{
      'thing.moved': (payload: { id: number }) => void
    }>()
  })

  test('gives listeners of several events their types', () => {
    type Both = Listeners<typeof moved | typeof sold>
    expectTypeOf<keyof Both>().toEqualTypeOf<'thing.moved' | 'thing.sold'>()
    expectTypeOf<Both>().toExtend<{
      'thing.moved': (payload: { id: number }) => void
      'thing.sold': (payload: { id: number; price: string }) => void
    }>()
  })
})
