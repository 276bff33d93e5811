import { z } from '@hono/zod-openapi'
import { describe, expect, expectTypeOf, test } from 'vitest'
import { type Event, event, type Listeners } from '../../src/realtime/event.ts'

describe('event()', () => {
  const Moved = z.object({ id: z.int() })
  const moved = event('thing.moved', {
    topic: 'things',
    when: 'Now',
    payload: Moved,
  })
  const sold = event('thing.sold', {
    topic: 'things',
    when: 'Now',
    payload: z.object({ id: z.int(), price: z.string() }),
  })

  test('gives a frozen name, and what the docs say of it', () => {
    expect(moved).toEqual({
      name: 'thing.moved',
      topic: 'things',
      when: 'Now',
      payload: Moved,
    })
    expect(Object.isFrozen(moved)).toBe(true)
  })

  test('infers the type of the name, ties the type of the payload to it', () => {
    expectTypeOf(moved).toEqualTypeOf<Event<'thing.moved', typeof Moved>>()
    expectTypeOf(moved.name).toEqualTypeOf<'thing.moved'>()
    expectTypeOf(sold).not.toExtend<Event<'thing.moved', typeof Moved>>()
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
