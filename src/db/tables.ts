import type { JobTables } from '@offloop/jobs/tables'

/**
 * A feature adds its tables by declaration merging, so that they are deleted with its folder:
 *
 *     declare module '../../db/tables.ts' {
 *       interface Tables {
 *         order: OrderTable
 *       }
 *     }
 */
export interface Tables extends JobTables {}

const THREE_DIGITS = Array.from({ length: 1_000 }, (_, number) => String(number).padStart(3, '0'))
const TWO_DIGITS = THREE_DIGITS.slice(0, 60).map((digits) => digits.slice(1))

const SECOND_MS = 1_000
const MINUTE_MS = 60 * SECOND_MS
const HOUR_MS = 60 * MINUTE_MS
const DAY_MS = 24 * HOUR_MS

/** Cached, because most dates of a list share a day. */
let lastDay = Number.NaN
let lastDayText = ''

/**
 * Like `toISOString()` for MySQL's years 1000 to 9999, but five times as fast: a tenth of a list's
 * cost.
 */
export function toTimestamp(date: Date): string {
  const at = date.getTime()
  const day = Math.floor(at / DAY_MS)
  if (day !== lastDay) {
    lastDayText = date.toISOString().slice(0, 'YYYY-MM-DDT'.length)
    lastDay = day
  }
  const ms = at - day * DAY_MS
  const hours = TWO_DIGITS[Math.floor(ms / HOUR_MS)]
  const minutes = TWO_DIGITS[Math.floor(ms / MINUTE_MS) % 60]
  const seconds = TWO_DIGITS[Math.floor(ms / SECOND_MS) % 60]
  return `${lastDayText}${hours}:${minutes}:${seconds}.${THREE_DIGITS[ms % SECOND_MS]}Z`
}
