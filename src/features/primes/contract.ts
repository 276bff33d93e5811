import { task } from '../../names.ts'

export interface Range {
  /** The first number that counts. */
  from: number
  /** The first number after those that count. */
  to: number
}

export const countPrimes = task<Range, number>('primes.count')
