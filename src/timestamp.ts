const padded = (length: number, digits: number) => Array.from({ length }, (_, number) => String(number).padStart(digits, '0'))
const TWO_DIGITS = padded(60, 2)
const THREE_DIGITS = padded(1_000, 3)

/**
 * What `toISOString()` gives, for the years 1000 to 9999, which are those that MySQL has. V8 prints by C's `printf`, which
 * takes twice as long: with two dates in each row, a tenth of what a list costs.
 */
export function timestampOf(date: Date): string {
  const day = `${date.getUTCFullYear()}-${TWO_DIGITS[date.getUTCMonth() + 1]}-${TWO_DIGITS[date.getUTCDate()]}`
  const time = `${TWO_DIGITS[date.getUTCHours()]}:${TWO_DIGITS[date.getUTCMinutes()]}:${TWO_DIGITS[date.getUTCSeconds()]}`
  return `${day}T${time}.${THREE_DIGITS[date.getUTCMilliseconds()]}Z`
}
