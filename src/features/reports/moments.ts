import type { TypedColumn } from './column-types.ts'

const SEPARATORS = ['-', '/', '.']
const COLON = 58
const POINT = 46
const SPACE = 32
const T = 84
const ZERO = 48
const MAX_FRACTION_DIGITS = 6
const ZONE = /^(Z|[+-]\d\d(:?\d\d)?)?$/
const TIME = 'HH:mm'

/** Whether the day or the month comes first in dates that end in the year. */
export type DateOrder = 'day' | 'month'

/** How a date or time is written. */
interface Layout {
  /** What stands between year, month and day; empty in a time without a date. */
  separator: string
  yearFirst: boolean
  /** Between date and time: `T` or a space; empty where one of them is missing. */
  timeSeparator: string
  hasSeconds: boolean
  fractionDigits: number
}

/** The dates, times or timestamps of a column, all of which must be written alike. */
export class Moments {
  readonly layout: Layout
  /** `Z`, `+02:00` and the like, the same for all; or empty. */
  readonly zone: string
  /** Whether each of them is a date with the day or the month first. */
  canBeDayFirst = true
  canBeMonthFirst = true
  /** Days and months below ten: written as `05`, as `5`. */
  hasPadded = false
  hasUnpadded = false
  readonly #signature: number

  /** Those of a column that begins with this value; undefined if that is no date or time. */
  static of(bytes: Buffer, start: number, stop: number): Moments | undefined {
    const signature = parse(bytes, start, stop)
    const zone = bytes.toString('latin1', cursor, stop)
    if (signature < 0 || !ZONE.test(zone) || (zone !== '' && !isTimestamp(signature)))
      return undefined
    const moments = new Moments(signature, zone)
    return moments.#noteOrder() ? moments : undefined
  }

  private constructor(signature: number, zone: string) {
    this.#signature = signature
    this.layout = unpack(signature)
    this.zone = zone
  }

  /** Takes one more value into account; false if it is written differently, or no date at all. */
  note(bytes: Buffer, start: number, stop: number): boolean {
    if (parse(bytes, start, stop) !== this.#signature || stop - cursor !== this.zone.length)
      return false
    for (let index = 0; index < this.zone.length; index++)
      if (bytes[cursor + index] !== this.zone.charCodeAt(index)) return false
    return this.#noteOrder()
  }

  #noteOrder(): boolean {
    if (this.layout.separator === '') return true
    if (first < 10) this.#notePadding(firstDigits)
    if (second < 10) this.#notePadding(secondDigits)
    if (this.layout.yearFirst) return isDay(year, first, second)
    this.canBeDayFirst &&= isDay(year, second, first)
    this.canBeMonthFirst &&= isDay(year, first, second)
    return this.canBeDayFirst || this.canBeMonthFirst
  }

  #notePadding(digits: number) {
    if (digits === 2) this.hasPadded = true
    else this.hasUnpadded = true
  }
}

/**
 * The order of day and month for each separator, where the columns that use it allow for only one:
 * `03/04/2024` is decided by a `25/12/2024` in the same column or in another one, and by nothing
 * else.
 */
export function dateOrders(columns: readonly Moments[]): Map<string, DateOrder> {
  const bySeparator = Map.groupBy(columns, ({ layout }) => layout.separator)
  const orders = new Map<string, DateOrder>()
  for (const [separator, moments] of bySeparator) {
    const undecided = moments.filter(({ layout }) => !layout.yearFirst)
    const [day, month] = [
      undecided.every((each) => each.canBeDayFirst),
      undecided.every((each) => each.canBeMonthFirst),
    ]
    if (day !== month) orders.set(separator, day ? 'day' : 'month')
  }
  return orders
}

/**
 * A column of dates or times; undefined where day and month cannot be told apart, or some have a
 * zero before them only.
 */
export function typedMoments(
  { layout, zone, hasPadded, hasUnpadded }: Moments,
  orders: ReadonlyMap<string, DateOrder>,
): Omit<TypedColumn, 'name' | 'nulls'> | undefined {
  const { separator, yearFirst, timeSeparator, hasSeconds, fractionDigits } = layout
  const seconds = hasSeconds
    ? `:ss${fractionDigits > 0 ? `.${'S'.repeat(fractionDigits)}` : ''}`
    : ''
  if (separator === '')
    return { type: 'time', format: TIME + seconds, sqlType: 'VARCHAR', cast: undefined }
  const order = yearFirst ? 'year' : orders.get(separator)
  if (!order || (hasPadded && hasUnpadded)) return undefined
  const [day, month] = hasUnpadded ? ['D', 'M'] : ['DD', 'MM']
  const parts = {
    year: ['YYYY', month, day],
    day: [day, month, 'YYYY'],
    month: [month, day, 'YYYY'],
  }[order]
  const time = timeSeparator === '' ? '' : `${timeSeparator}${TIME}${seconds}${zone}`
  const format = parts.join(separator) + time
  const type = time === '' ? 'date' : 'timestamp'
  const sqlType = type.toUpperCase()
  const isIso = yearFirst && separator === '-' && !hasUnpadded && (time === '' || hasSeconds)
  const local = (value: string) =>
    zone === '' ? value : `left(${value}, length(${value}) - ${zone.length})`
  if (isIso)
    return {
      type,
      format,
      layout: { ...layout, zone },
      sqlType,
      cast: zone === '' ? undefined : local,
    }
  // DuckDB's formats have no fraction of that many digits.
  if (fractionDigits > 0) return undefined
  const pattern = parts
    .map((part) => `%${part[0] === 'M' ? 'm' : part[0] === 'D' ? 'd' : 'Y'}`)
    .join(separator)
  const timePattern = time === '' ? '' : `${timeSeparator}%H:%M${hasSeconds ? ':%S' : ''}`
  const cast = (value: string) => `strptime(${local(value)}, '${pattern}${timePattern}')`
  return { type, format, layout: { ...layout, zone }, sqlType, cast }
}

// What `parse` found last: a file may hold a hundred million dates, and no object is made for any
// of them.
let cursor = 0
let year = 0
let first = 0
let second = 0
let firstDigits = 0
let secondDigits = 0
let digits = 0

/** Parses a date, a time or both, up to a zone; gives its layout as a number, or -1. */
function parse(bytes: Buffer, start: number, stop: number): number {
  cursor = start
  if (stop - start < 5) return -1
  const leading = number(bytes)
  if (bytes[cursor] === COLON) {
    cursor = start
    const time = parseTime(bytes)
    return time < 0 || cursor !== stop ? -1 : pack(0, false, 0, time)
  }
  const separator = bytes[cursor] as number
  const place = separator === 45 ? 1 : separator === 47 ? 2 : separator === 46 ? 3 : 0
  if (place === 0) return -1
  const leadingDigits = digits
  cursor++
  const middle = number(bytes)
  const middleDigits = digits
  if (bytes[cursor] !== separator) return -1
  cursor++
  const trailing = number(bytes)
  const yearFirst = leadingDigits === 4
  year = yearFirst ? leading : trailing
  first = yearFirst ? middle : leading
  second = yearFirst ? trailing : middle
  firstDigits = yearFirst ? middleDigits : leadingDigits
  secondDigits = yearFirst ? digits : middleDigits
  if ((!yearFirst && digits !== 4) || !isShort(firstDigits) || !isShort(secondDigits)) return -1
  if (cursor === stop) return pack(place, yearFirst, 0, 0)
  const timeSeparator = bytes[cursor] === T ? 1 : bytes[cursor] === SPACE ? 2 : 0
  if (timeSeparator === 0) return -1
  cursor++
  const time = parseTime(bytes)
  return time < 0 ? -1 : pack(place, yearFirst, timeSeparator, time)
}

/**
 * `HH:mm`, with seconds and their fraction or without; gives 0, 1, or 1 and the digits of the
 * fraction; or -1.
 */
function parseTime(bytes: Buffer): number {
  if (number(bytes) > 23 || digits !== 2 || bytes[cursor] !== COLON) return -1
  cursor++
  if (number(bytes) > 59 || digits !== 2) return -1
  if (bytes[cursor] !== COLON) return 0
  cursor++
  if (number(bytes) > 59 || digits !== 2) return -1
  if (bytes[cursor] !== POINT) return 1
  cursor++
  number(bytes)
  return digits > 0 && digits <= MAX_FRACTION_DIGITS ? 1 + digits : -1
}

function number(bytes: Buffer): number {
  const start = cursor
  let value = 0
  for (; isDigit(bytes[cursor] as number); cursor++)
    value = value * 10 + (bytes[cursor] as number) - ZERO
  digits = cursor - start
  return value
}

export const isDigit = (byte: number) => byte >= ZERO && byte < ZERO + 10

const isShort = (count: number) => count === 1 || count === 2

const pack = (separator: number, yearFirst: boolean, timeSeparator: number, time: number) =>
  ((separator * 2 + (yearFirst ? 1 : 0)) * 3 + timeSeparator) * 8 + time

const isTimestamp = (signature: number) => unpack(signature).timeSeparator !== ''

function unpack(signature: number): Layout {
  const time = signature % 8
  const date = Math.floor(signature / 24)
  return {
    separator: ['', ...SEPARATORS][date >> 1] as string,
    yearFirst: date % 2 === 1,
    timeSeparator: ['', 'T', ' '][Math.floor(signature / 8) % 3] as string,
    hasSeconds: time > 0,
    fractionDigits: Math.max(0, time - 1),
  }
}

const DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]

/** Whether there is such a day in the Gregorian calendar. */
function isDay(year: number, month: number, day: number): boolean {
  if (year < 1 || month < 1 || month > 12 || day < 1) return false
  const isLeapYear = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0)
  return day <= (DAYS[month - 1] as number) + (month === 2 && isLeapYear ? 1 : 0)
}
