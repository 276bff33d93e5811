import { implement, type TaskContext } from '@offloop/workpool/task'
import { countPrimes, type Range } from './contract.ts'

/** Numbers between two checks for cancellation: about 0.1 ms of work. */
const CHECK_EVERY = 1_000

/** Trial division, as an example of heavy work: a sieve would be faster. */
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
