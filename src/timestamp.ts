const padded = (length: number, digits: number) =>
  Array.from({ length }, (_, number) => String(number).padStart(digits, '0'))
const TWO_DIGITS = padded(60, 2)
const THREE_DIGITS = padded(1_000, 3)

const SECOND_MS = 1_000
const MINUTE_MS = 60 * SECOND_MS
const HOUR_MS = 60 * MINUTE_MS
const DAY_MS = 24 * HOUR_MS

/** The day printed last, which most dates of a list share, and `2026-11-28T` for it. */
let lastDay = Number.NaN
let lastDayText = ''

/**
 * Prints what `toISOString()` does, for the years 1000 to 9999 that MySQL has. V8 takes five times
 * as long, a tenth of what a list with two dates in each row costs.
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
