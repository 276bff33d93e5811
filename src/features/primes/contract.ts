import { task } from '@offloop/workpool/task'

/** The numbers n with from ≤ n < to. */
export interface Range {
  from: number
  to: number
}

export const countPrimes = task<Range, number>('primes.count', {
  split: splitRange,
  join: (left, right) => left + right,
})

/** Fewer numbers are not worth a message. */
const MIN_NUMBERS = 2_000

/**
 * Splits into parts of equal cost: testing n takes about √n divisions, and all numbers below n
 * about n^1.5.
 */
function splitRange({ from, to }: Range, parts: number): Range[] {
  const count = Math.min(parts, Math.ceil((to - from) / MIN_NUMBERS))
  const costBelow = (n: number) => n ** 1.5
  const first = costBelow(from)
  const each = (costBelow(to) - first) / count
  const starts = Array.from({ length: count }, (_, part) =>
    part === 0 ? from : Math.round((first + part * each) ** (2 / 3)),
  )
  return starts.map((start, part) => ({ from: start, to: starts[part + 1] ?? to }))
}
