import { describe, expect, expectTypeOf, test } from 'vitest'
import { type Task, task } from '../task.ts'

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

/** Only their types count. */
const inputOf = <Input>(_: Task<Input, unknown>) => ({}) as Input
const outputOf = <Output>(_: Task<never, Output>) => ({}) as Output
