import { describe, expect, expectTypeOf, test } from 'vitest'
import { type Job, job } from '../job.ts'

interface Range {
  from: number
  to: number
}

describe('job()', () => {
  test('gives a frozen name with its options, and defaults for those that are not set', () => {
    const build = job<Range, number>('build', { attempts: 3 })
    expect(build).toEqual({
      name: 'build',
      attempts: 3,
      timeoutMs: 600_000,
      backoffMs: 1_000,
      concurrency: Number.POSITIVE_INFINITY,
    })
    expect(Object.isFrozen(build)).toBe(true)
  })

  test.each([
    ['attempts', [0, -1, 1.5, 65_536, Number.NaN, Number.POSITIVE_INFINITY]],
    ['timeoutMs', [0, -1, Number.NaN, Number.NEGATIVE_INFINITY]],
    ['concurrency', [0, -1, 1.5, Number.NaN, Number.NEGATIVE_INFINITY]],
    ['backoffMs', [0, -1, Number.NaN, Number.POSITIVE_INFINITY]],
  ])('refuses a number for `%s` that is out of its range', (option, values) => {
    for (const value of values)
      expect(() => job('build', { [option]: value })).toThrow(
        expect.objectContaining({
          name: 'RangeError',
          message: expect.stringContaining(`Expected \`${option}\` of the job build`),
        }),
      )
  })

  test('refuses an option that is no number', () => {
    expect(() => job('build', { timeoutMs: '10' as never })).toThrow(
      new TypeError(
        "Expected `timeoutMs` of the job build to be a positive number of milliseconds, or Infinity for no limit, got '10'",
      ),
    )
  })

  test('takes any time for an attempt, Infinity included', () => {
    expect(job('build', { timeoutMs: 30 * 86_400_000 }).timeoutMs).toBe(2_592_000_000)
    expect(job('build', { timeoutMs: Number.POSITIVE_INFINITY, attempts: 65_535 }).timeoutMs).toBe(
      Number.POSITIVE_INFINITY,
    )
  })

  test('refuses a name that its column cannot hold', () => {
    for (const name of ['', 'é', 'build ', 'a b', 'x'.repeat(101), undefined as never])
      expect(() => job(name)).toThrow(TypeError)
    expect(() => job('é')).toThrow(
      "Expected the name of a job to be 1 to 100 ASCII characters without spaces, got 'é'",
    )
  })

  test('ties the types of input and result to the name', () => {
    const build = job<Range, number>('build')
    expectTypeOf(build).not.toExtend<Job<{ from: string }, number>>()
    expectTypeOf(build).not.toExtend<Job<Range, string>>()
  })
})
