import { detachedContext } from '@offloop/workpool/task'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { CancelledContext } from '../../../packages/workpool/test/support/cancelled-context.ts'
import { countPrimesIn } from '../../../src/features/primes/compute.ts'

const count = (from: number, to: number) => countPrimesIn({ from, to }, detachedContext)

describe('counting primes', () => {
  test.each([
    [10, 4],
    [1_000, 168],
    [100_000, 9_592],
    [1_400_000, 107_126],
  ])('finds those below %d: %d', (to, primes) => {
    expect(count(0, to)).toBe(primes)
  })

  test.each([
    [0, 0],
    [0, 1],
    [0, 2],
    [1, 2],
    [2, 2],
    [3, 3],
    [4, 5],
    [8, 11],
    [9, 9],
    [24, 29],
  ])('finds none from %d to below %d', (from, to) => {
    expect(count(from, to)).toBe(0)
  })

  test.each([
    [0, 3, 1],
    [2, 3, 1],
    [2, 4, 2],
    [3, 4, 1],
    [3, 5, 1],
    [3, 6, 2],
    [4, 6, 1],
    [25, 30, 1],
    [29, 30, 1],
  ])(
    'counts the lower bound and not the upper: from %d to below %d it finds %d',
    (from, to, primes) => {
      expect(count(from, to)).toBe(primes)
    },
  )

  test('agrees with a sieve, however a range is split', () => {
    const LIMIT = 5_000
    const sieve = sieveBelow(LIMIT)
    const bound = fc.nat({ max: LIMIT })
    fc.assert(
      fc.property(fc.tuple(bound, bound, bound), (bounds) => {
        const [from, middle, to] = bounds.sort((a, b) => a - b) as [number, number, number]
        expect(count(from, to)).toBe(sieve.slice(from, to).filter(Boolean).length)
        expect(count(from, middle) + count(middle, to)).toBe(count(from, to))
      }),
    )
  })

  test('stops soon after it was cancelled', () => {
    const cancelled = new CancelledContext(3)
    expect(() => countPrimesIn({ from: 0, to: 1_000_000 }, cancelled.context)).toThrow(
      cancelled.reason,
    )
    expect(cancelled.looks).toBe(3)
  })
})

function sieveBelow(limit: number): boolean[] {
  const isPrime = Array.from({ length: limit }, (_, n) => n >= 2)
  for (let n = 2; n * n < limit; n++)
    if (isPrime[n])
      for (let multiple = n * n; multiple < limit; multiple += n) isPrime[multiple] = false
  return isPrime
}
