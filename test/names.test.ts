import { describe, expect, expectTypeOf, test } from 'vitest'
import { type Event, event, type Job, job, type Listeners, type Task, task } from '../src/names.ts'

interface Range {
  from: number
  to: number
}

describe('task()', () => {
  test('gives a frozen name and nothing else, which a thread can take', () => {
    const sum = task<Range, number>('sum')
    expect(sum).toEqual({ name: 'sum' })
    expect(Object.isFrozen(sum)).toBe(true)
    expect(structuredClone(sum)).toEqual(sum)
  })

  test('ties the types of input and output to the name', () => {
    const sum = task<Range, number>('sum')
    expectTypeOf(sum).toEqualTypeOf<Task<Range, number>>()
    expectTypeOf(sum).not.toExtend<Task<{ from: string }, number>>()
    expectTypeOf(sum).not.toExtend<Task<Range, string>>()
    expectTypeOf(inputOf(sum)).toEqualTypeOf<Range>()
    expectTypeOf(outputOf(sum)).toEqualTypeOf<number>()
  })
})

describe('job()', () => {
  test('gives a frozen name with its options, and defaults for those that are not set', () => {
    const build = job<Range, number>('build', { attempts: 3 })
    expect(build).toEqual({ name: 'build', attempts: 3, timeoutMs: 600_000, backoffMs: 1_000 })
    expect(Object.isFrozen(build)).toBe(true)
  })

  test('ties the types of input and result to the name', () => {
    const build = job<Range, number>('build')
    expectTypeOf(build).not.toExtend<Job<{ from: string }, number>>()
    expectTypeOf(build).not.toExtend<Job<Range, string>>()
  })
})

describe('event()', () => {
  const moved = event<{ id: number }>()('thing.moved', { topic: 'things', when: 'Now', payload: { id: 'which' } })
  const sold = event<{ id: number; price: string }>()('thing.sold', {
    topic: 'things',
    when: 'Now',
    payload: { id: 'which', price: 'for what' },
  })

  test('gives a frozen name, and what the docs say of it', () => {
    expect(moved).toEqual({ name: 'thing.moved', topic: 'things', when: 'Now', payload: { id: 'which' } })
    expect(Object.isFrozen(moved)).toBe(true)
  })

  test('infers the type of the name, ties the type of the payload to it', () => {
    expectTypeOf(moved).toEqualTypeOf<Event<'thing.moved', { id: number }>>()
    expectTypeOf(moved.name).toEqualTypeOf<'thing.moved'>()
    expectTypeOf(sold).not.toExtend<Event<'thing.moved', { id: number }>>()
  })

  test('gives listeners of one event their type', () => {
    expectTypeOf<Listeners<typeof moved>>().toExtend<{ 'thing.moved': (payload: { id: number }) => void }>()
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

/** Only their types count. */
const inputOf = <Input>(_: Task<Input, unknown>) => ({}) as Input
const outputOf = <Output>(_: Task<never, Output>) => ({}) as Output
