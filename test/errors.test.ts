import { describe, expect, test } from 'vitest'
import { AppError, overloaded } from '../src/errors.ts'

describe('overloaded', () => {
  test('says after how many seconds to come back: never less than the wait, at most twice as long', () => {
    const seconds = Array.from({ length: 200 }, () =>
      Number(overloaded('Busy', 3_000).headers['Retry-After']),
    )
    expect(Math.min(...seconds)).toBeGreaterThanOrEqual(3)
    expect(Math.max(...seconds)).toBeLessThanOrEqual(6)
  })

  test('spreads those who were refused together', () => {
    expect(
      new Set(Array.from({ length: 200 }, () => overloaded('Busy', 3_000).headers['Retry-After']))
        .size,
    ).toBeGreaterThan(1)
  })

  test('has no stack trace, and leaves those of other errors alone', () => {
    expect(overloaded('Busy').stack).not.toContain('    at ')
    expect(new AppError('conflict', 'Taken').stack).toContain('    at ')
  })
})
