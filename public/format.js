/**
 * Numbers for people: three significant digits and a unit. All functions return `–` for an unknown
 * value.
 */

const UNKNOWN = '–'
const BYTES = ['B', 'KiB', 'MiB', 'GiB', 'TiB']

/** @param {number | null | undefined} value */
const isKnown = (value) => typeof value === 'number' && Number.isFinite(value)

const TOO_LONG = 1e21
const TOO_SMALL = 1e-6

/**
 * @param {number} value in three digits, or all before the point: 0.000123, 0.123, 1.23, 12.3, 123,
 * 1,234, 1.23E-7
 */
function threeDigits(value) {
  const size = Math.abs(value)
  return value.toLocaleString('en-GB', {
    ...(size >= 100 && size < TOO_LONG
      ? { maximumFractionDigits: 0 }
      : { maximumSignificantDigits: 3 }),
    ...(size >= TOO_LONG || (size > 0 && size < TOO_SMALL) ? { notation: 'scientific' } : {}),
    // Zero has no sign.
    signDisplay: 'negative',
  })
}

/** @param {number | null | undefined} value */
export const number = (value) =>
  isKnown(value) ? threeDigits(/** @type {number} */ (value)) : UNKNOWN

/**
 * Digits that a double may not hold: all of them, in groups of three before the point.
 * @param {string} digits
 */
export const exactNumber = (digits) =>
  digits.replace(/^(-?)(\d+)/, (_, sign, whole) => sign + BigInt(whole).toLocaleString('en-GB'))

/** A share from 0 to 1. @param {number | null | undefined} value */
export const percent = (value) =>
  isKnown(value) ? `${threeDigits(/** @type {number} */ (value) * 100)} %` : UNKNOWN

/** A span of time, from microseconds to days. @param {number | null | undefined} ms */
export function duration(ms) {
  if (!isKnown(ms)) return UNKNOWN
  const value = /** @type {number} */ (ms)
  if (value === 0) return '0 ms'
  if (value < 1) return `${threeDigits(value * 1_000)} µs`
  if (value < 1_000) return `${threeDigits(value)} ms`
  if (value < 60_000) return `${threeDigits(value / 1_000)} s`
  const minutes = Math.floor(value / 60_000)
  if (minutes < 60) return `${minutes} min ${Math.floor((value % 60_000) / 1_000)} s`
  const hours = Math.floor(minutes / 60)
  return hours < 48
    ? `${hours} h ${minutes % 60} min`
    : `${Math.floor(hours / 24)} d ${hours % 24} h`
}

/** @param {number | null | undefined} value */
export function bytes(value) {
  if (!isKnown(value)) return UNKNOWN
  let amount = /** @type {number} */ (value)
  let unit = 0
  for (; amount >= 1_000 && unit < BYTES.length - 1; unit++) amount /= 1_024
  return `${threeDigits(amount)} ${BYTES[unit]}`
}

/**
 * The time of day, to the second. @param {number | string | Date} when milliseconds since the
 * epoch, or a date
 */
export const timeOfDay = (when) => new Date(when).toLocaleTimeString('en-GB')
