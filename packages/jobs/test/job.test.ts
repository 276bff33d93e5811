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
      queue: 'default',
      attempts: 3,
      timeoutMs: 600_000,
      backoffMs: 1_000,
      limit: Number.POSITIVE_INFINITY,
      key: undefined,
      limitPerKey: Number.POSITIVE_INFINITY,
      rate: undefined,
    })
    expect(Object.isFrozen(build)).toBe(true)
  })

  test.each([
    ['attempts', [0, -1, 1.5, 65_536, Number.NaN, Number.POSITIVE_INFINITY]],
    ['timeoutMs', [0, -1, Number.NaN, Number.NEGATIVE_INFINITY]],
    ['limit', [0, -1, 1.5, Number.NaN, Number.NEGATIVE_INFINITY]],
    ['limitPerKey', [0, -1, 1.5, Number.NaN, Number.NEGATIVE_INFINITY]],
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

  test.each([
    [{ count: 0, perMs: 1_000 }, '`rate.count` of the job build to be a positive integer, got 0'],
    [{ count: 1.5, perMs: 1_000 }, '`rate.count` of the job build to be a positive integer'],
    [{ count: 1, perMs: 999 }, '`rate.perMs` of the job build to be a finite number of'],
    [{ count: 1, perMs: Number.POSITIVE_INFINITY }, '`rate.perMs` of the job build'],
    [{ count: 1 }, 'of at least 1000, got undefined'],
    [5, '`rate.count` of the job build to be a positive integer, got undefined'],
  ])('refuses the rate %o', (rate, message) => {
    expect(() => job('build', { rate: rate as never })).toThrow(message)
  })

  test('refuses a key that is no function, and a limit for each key without a key', () => {
    expect(() => job('build', { key: 'tenant' as never })).toThrow(
      new TypeError(
        "Expected `key` of the job build to be a function from input to key, got 'tenant'",
      ),
    )
    expect(() => job('build', { limitPerKey: 1 })).toThrow(
      new TypeError(
        'Expected `key` of the job build to be a function from input to key, because it has `limitPerKey`, got undefined',
      ),
    )
  })

  test('refuses a queue that cannot stand in a setting or a path', () => {
    for (const queue of ['', 'a b', 'a:b', 'a,b', '*', 'a/b', 'é', 'x'.repeat(101), 7 as never])
      expect(() => job('build', { queue })).toThrow(TypeError)
    expect(() => job('build', { queue: 'a:b' })).toThrow(
      "Expected `queue` of the job build to be 1 to 100 letters, digits, `_`, `.` and `-`, got 'a:b'",
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
