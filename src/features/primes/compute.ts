import { implement, type TaskContext } from '@offloop/workpool/task'
import { countPrimes, type Range } from './contract.ts'

/** How many numbers are tested between two looks at the caller: some 0.1 ms of work. */
const CHECK_EVERY = 1_000

/**
 * Counts the primes p with from ≤ p < to by trial division. A sieve would be a hundred times
 * faster; the point here is work that is heavy and grows with the numbers.
 */
export function countPrimesIn({ from, to }: Range, context: TaskContext): number {
  let count = from <= 2 && to > 2 ? 1 : 0
  let untilCheck = CHECK_EVERY
  for (let n = Math.max(3, from | 1); n < to; n += 2) {
    if (isOddPrime(n)) count++
    if (--untilCheck > 0) continue
    context.throwIfCancelled()
    untilCheck = CHECK_EVERY
  }
  return count
}

function isOddPrime(n: number): boolean {
  for (let divisor = 3; divisor * divisor <= n; divisor += 2) if (n % divisor === 0) return false
  return true
}

implement(countPrimes, countPrimesIn)
