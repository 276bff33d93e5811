import type { ColumnSummary } from './contract.ts'

const DIGIT_0 = 48
/** A value with any other character is text. */
const CHARACTERS = '09+-./: TZEetrufals'
/** A character's place among them, from 1; all digits but 0 count as 9. */
const KINDS = new Uint8Array(256)
for (const [index, character] of [...CHARACTERS].entries())
  KINDS[character.charCodeAt(0)] = index + 1
const [ZERO, NINE] = [1, 2]
KINDS.fill(NINE, DIGIT_0 + 1, DIGIT_0 + 10)
/** A power of two is faster to divide by. */
const WIDTH = 32
/** A column of numbers needs fewer nodes. */
const MAX_NODES = 4_096
/** Longer numbers are text, so that the scan may cut them. */
const MAX_NUMBER_BYTES = 200
/** The digits that HUGEINT and DECIMAL can always hold. */
const MAX_DIGITS = 38
const BIGINT_DIGITS = 18
const DOUBLE_DIGITS = 15

const NUMBER = /^-?(?<whole>0|9\d*)(\.(?<fraction>\d+))?$/
/** Programs always write the sign of an exponent. */
const EXPONENT = /^-?\d(\.\d+)?[eE][-+]\d+$/
const BOOLEAN = /^(true|false)$/
const TIME = /(?<hour>\d\d):(?<minute>\d\d)(:(?<seconds>\d\d)(\.\d{1,6})?)?/.source
const ZONE = /(?<zone>Z|[-+]\d\d(:?\d\d)?)/.source
const YEAR_FIRST = /(?<year>\d{4})(?<separator>[-/.])(?<first>\d\d?)\k<separator>(?<second>\d\d?)/
  .source
const YEAR_LAST = /(?<first>\d\d?)(?<separator>[-/.])(?<second>\d\d?)\k<separator>(?<year>\d{4})/
  .source
const MOMENT = new RegExp(`^((${YEAR_FIRST}|${YEAR_LAST})([T ]${TIME}${ZONE}?)?|${TIME})$`, 'd')

export interface Column {
  name: string
  /** Generated: the file's own names stay out of SQL. */
  sql: string
  type: ColumnSummary['type']
  format?: string
  fractionDigits?: number
  /** At the end of each value; DuckDB's type has none. */
  zone?: string
  sqlType: string
  /** Of `strptime`, where a cast does not convert a text to `sqlType`. */
  pattern?: string
  /** No double holds all digits. */
  isLong?: boolean
  nulls: number
}

type Type = Omit<Column, 'name' | 'sql' | 'nulls'>
type Family = 'number' | 'boolean' | 'moment' | 'text'

interface Shape {
  family: Family
  isValid?: (bytes: Buffer, start: number, stop: number) => boolean
}

/** Which of day and month comes first. */
type DateOrder = 'day' | 'month'

const TEXT: Type = { type: 'text', sqlType: 'VARCHAR' }

/**
 * Finds a column's type from all of its values: each must be written as that type is printed.
 *
 * A column has few shapes: that of `12.50` is `99.99`. A trie finds a value's shape, and each shape
 * is classified once.
 */
export class ColumnTypes {
  missing = 0
  moments: Moments | undefined
  #family: Family | undefined
  #wholeDigits = 0
  #fractionDigits = 0
  #isWhole = true
  #hasExponent = false
  #fitsDouble = true
  /** Each node's child by the kind of the next byte; 0 for none. */
  readonly #children = new Int32Array(WIDTH * MAX_NODES)
  readonly #prefixes = ['']
  readonly #shapes: (Shape | undefined)[] = []

  /** The value from `start` to `stop` must not be empty. */
  note(bytes: Buffer, start: number, stop: number): void {
    if (this.#family === 'text') return
    const children = this.#children
    let node = 0
    for (let at = start; at < stop; at++) {
      const kind = KINDS[bytes[at] as number] as number
      node = children[node + kind] || this.#grow(node, kind)
      if (node === 0) break
    }
    const index = node / WIDTH
    this.#shapes[index] ??= this.#classify(this.#prefixes[index] as string)
    const shape = this.#shapes[index] as Shape
    this.#family ??= shape.family
    if (shape.family !== this.#family || shape.isValid?.(bytes, start, stop) === false)
      this.#family = 'text'
    if (this.#family === 'text') this.moments = undefined
  }

  /** The type must hold the sum of all `rows`, too. */
  toType(rows: number, orders: ReadonlyMap<string, DateOrder>): Type {
    if (this.#family === 'boolean') return { type: 'boolean', sqlType: 'BOOLEAN' }
    if (this.#family === 'moment') return this.moments?.toType(orders) ?? TEXT
    if (this.#family !== 'number') return TEXT
    const digits = this.#wholeDigits + this.#fractionDigits
    const isLong = digits > DOUBLE_DIGITS
    if (this.#isWhole) {
      if (digits > MAX_DIGITS) return TEXT
      return { type: 'integer', isLong, sqlType: digits > BIGINT_DIGITS ? 'HUGEINT' : 'BIGINT' }
    }
    if (!this.#hasExponent && digits + String(rows).length <= MAX_DIGITS)
      return { type: 'number', isLong, sqlType: `DECIMAL(${digits}, ${this.#fractionDigits})` }
    return this.#fitsDouble ? { type: 'number', sqlType: 'DOUBLE' } : TEXT
  }

  /** Returns 0 if such values are text. */
  #grow(node: number, kind: number): number {
    const prefix = this.#prefixes[node / WIDTH] as string
    const index = this.#prefixes.length
    if (kind === 0 || index === MAX_NODES || prefix.length === MAX_NUMBER_BYTES) return 0
    // One child serves all digits but a leading zero.
    const isDigit = kind <= NINE && prefix !== '' && prefix !== '-'
    for (const each of isDigit ? [ZERO, NINE] : [kind]) this.#children[node + each] = index * WIDTH
    this.#prefixes.push(prefix + CHARACTERS[(isDigit ? NINE : kind) - 1])
    return index * WIDTH
  }

  #classify(shape: string): Shape {
    if (BOOLEAN.test(shape)) return { family: 'boolean' }
    const { whole, fraction = '' } = NUMBER.exec(shape)?.groups ?? {}
    if (whole !== undefined || EXPONENT.test(shape)) return this.#toNumber(shape, whole, fraction)
    const moment = toMoment(shape)
    if (!moment) return { family: 'text' }
    const isValid = (bytes: Buffer, start: number, stop: number) => {
      this.moments ??= new Moments(moment, bytes, stop)
      return this.moments.note(moment, bytes, start, stop)
    }
    return { family: 'moment', isValid }
  }

  #toNumber(shape: string, whole: string | undefined, fraction: string): Shape {
    this.#wholeDigits = Math.max(this.#wholeDigits, whole?.length ?? 1)
    this.#fractionDigits = Math.max(this.#fractionDigits, fraction.length)
    this.#hasExponent ||= whole === undefined
    // A printed integer is never -0.
    if (whole === undefined || fraction !== '' || shape === '-0') this.#isWhole = false
    if (whole !== undefined && whole.length + fraction.length <= DOUBLE_DIGITS)
      return { family: 'number' }
    const isValid = (bytes: Buffer, start: number, stop: number) => {
      this.#fitsDouble &&= printsBack(bytes.toString('latin1', start, stop))
      return this.#fitsDouble || !this.#hasExponent
    }
    return { family: 'number', isValid }
  }
}

/** Whether a double keeps all digits of a number. */
export function printsBack(text: string): boolean {
  const value = Number(text)
  return Number.isFinite(value) && toDigits(value.toExponential()) === toDigits(text)
}

const toDigits = (number: string) =>
  number
    .replace(/e.*$/i, '')
    .replace(/[-.]/g, '')
    .replace(/^0+|0+$/g, '')

/** Undefined if the shape is no date or time. */
function toMoment(shape: string) {
  const { groups, indices } = MOMENT.exec(shape) ?? {}
  if (!groups || !indices?.groups) return undefined
  // `YYYY-A-BTHH:mm:ss.SSS+99:99`, where A and B are day and month.
  const layout = shape
    .replaceAll('0', '9')
    .replace(/^9{4}([-/.])99?[-/.]99?/, 'YYYY$1A$1B')
    .replace(/^99?([-/.])99?[-/.]9{4}/, 'A$1B$1YYYY')
    .replace('99:99', 'HH:mm')
    .replace('mm:99', 'mm:ss')
    .replace(/(?<=\.)9+/, (digits) => 'S'.repeat(digits.length))
  const { year, first, second, hour, minute, seconds } = indices.groups
  return { layout, zone: groups['zone'] ?? '', year, first, second, hour, minute, seconds }
}

type Moment = NonNullable<ReturnType<typeof toMoment>>

const STRPTIME: Record<string, string> = { Y: '%Y', M: '%m', D: '%d', H: '%H', m: '%M', s: '%S' }

/** Dates, times or timestamps that are all written alike. */
class Moments {
  /** The layout before the second of day and month; empty for times. */
  readonly dateStyle: string
  canBeDayFirst: boolean
  canBeMonthFirst = true
  readonly #layout: string
  readonly #zone: string
  #hasPadded = false
  #hasUnpadded = false

  constructor({ layout, zone }: Moment, bytes: Buffer, stop: number) {
    this.dateStyle = /^.*(?=B)/.exec(layout)?.[0] ?? ''
    this.canBeDayFirst = !layout.startsWith('Y')
    this.#layout = layout
    this.#zone = bytes.toString('latin1', stop - zone.length, stop)
  }

  /** False if the value is written differently or does not exist. */
  note(moment: Moment, bytes: Buffer, start: number, stop: number): boolean {
    if (moment.layout !== this.#layout) return false
    const zone = this.#zone
    if (zone.length > 1 && bytes.toString('latin1', stop - zone.length, stop) !== zone) return false
    const { year, first, second, hour, minute, seconds } = moment
    if (parseDigits(bytes, start, hour) > 23) return false
    if (parseDigits(bytes, start, minute) > 59) return false
    if (parseDigits(bytes, start, seconds) > 59) return false
    if (!first || !second) return true
    const [one, two] = [parseDigits(bytes, start, first), parseDigits(bytes, start, second)]
    this.#hasPadded ||= bytes[start + first[0]] === DIGIT_0 || bytes[start + second[0]] === DIGIT_0
    this.#hasUnpadded ||= first[1] - first[0] === 1 || second[1] - second[0] === 1
    const years = parseDigits(bytes, start, year)
    this.canBeDayFirst &&= isDay(years, two, one)
    this.canBeMonthFirst &&= isDay(years, one, two)
    return this.canBeDayFirst || this.canBeMonthFirst
  }

  /** Undefined if day and month are ambiguous, or unevenly zero-padded. */
  toType(orders: ReadonlyMap<string, DateOrder>): Type | undefined {
    const [layout, zone] = [this.#layout, this.#zone]
    const local = layout.slice(0, layout.length - zone.length)
    if (this.dateStyle === '') return { type: 'time', format: local, sqlType: 'VARCHAR' }
    const order = orders.get(this.dateStyle)
    if (!order || (this.#hasPadded && this.#hasUnpadded)) return undefined
    const [day, month] = this.#hasUnpadded ? ['D', 'M'] : ['DD', 'MM']
    const [first, second] = order === 'day' ? [day, month] : [month, day]
    const format = local.replace(/A(.)B/, `${first}$1${second}`)
    const [, fraction = ''] = /\.(S+)$/.exec(local) ?? []
    const isDate = !local.includes('HH')
    const type = isDate ? 'date' : 'timestamp'
    const shown = { format: format + zone, fractionDigits: fraction.length, zone }
    const found: Type = { type, ...shown, sqlType: type.toUpperCase() }
    const isIso = local.startsWith('YYYY-') && !this.#hasUnpadded
    if (isIso && (isDate || local.includes('ss'))) return found
    // DuckDB's patterns have no fraction of arbitrary length.
    if (!isIso && fraction !== '') return undefined
    const pattern = format.replace(/Y+|M+|D+|H+|m+|s+/g, ([letter = '']) => STRPTIME[letter] ?? '')
    return { ...found, pattern }
  }
}

/** Day or month first, by style: `25/12/2024` decides for `03/04/2024` of all columns. */
export function findDateOrders(columns: readonly ColumnTypes[]): Map<string, DateOrder> {
  const all = columns.flatMap(({ moments }) => moments ?? [])
  const orders = new Map<string, DateOrder>()
  for (const [style, moments] of Map.groupBy(all, ({ dateStyle }) => dateStyle)) {
    const day = moments.every(({ canBeDayFirst }) => canBeDayFirst)
    const month = moments.every(({ canBeMonthFirst }) => canBeMonthFirst)
    if (day !== month) orders.set(style, day ? 'day' : 'month')
  }
  return orders
}

function parseDigits(bytes: Buffer, start: number, part: readonly [number, number] | undefined) {
  let value = 0
  if (part)
    for (let at = start + part[0]; at < start + part[1]; at++)
      value = value * 10 + (bytes[at] as number) - DIGIT_0
  return value
}

const DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]

function isDay(year: number, month: number, day: number): boolean {
  if (year < 1 || month < 1 || month > 12 || day < 1) return false
  const isLeapYear = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0)
  return day <= (DAYS[month - 1] as number) + (month === 2 && isLeapYear ? 1 : 0)
}
