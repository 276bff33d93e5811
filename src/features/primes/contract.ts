import { task } from '../../names.ts'

export interface Range {
  /** The first number that counts. */
  from: number
  /** The first number after those that count. */
  to: number
}

export const countPrimes = task<Range, number>('primes.count', { split: splitRange, join: (left, right) => left + right })

/** Fewer are not worth a message. */
const MIN_NUMBERS = 2_000

/** Cuts a range so that each part costs the same: to test n takes some √n divisions, so all below n take some n^1.5. */
function splitRange({ from, to }: Range, parts: number): Range[] {
  const count = Math.min(parts, Math.ceil((to - from) / MIN_NUMBERS))
  const costBelow = (n: number) => n ** 1.5
  const boundary = (part: number) => {
    const cost = costBelow(from) + ((costBelow(to) - costBelow(from)) * part) / count
    return part === count ? to : Math.round(cost ** (2 / 3))
  }
  return Array.from({ length: count }, (_, part) => ({ from: part === 0 ? from : boundary(part), to: boundary(part + 1) }))
}
