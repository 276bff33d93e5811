import type { ColumnType } from './contract.ts'

/** A value with any other character is text. */
const CHARACTERS = '0123456789+-./: TZEetrufals'
const WIDTH = 32
const CLASSES = new Uint8Array(256)
for (const [index, character] of [...CHARACTERS].entries())
  CLASSES[character.charCodeAt(0)] = index + 1
const [ZERO, NINE] = [48, 57]
/** A column of numbers needs fewer nodes. */
const MAX_NODES = 4_096
/** Longer numbers are text, so that the scan may cut long values. */
const MAX_NUMBER_BYTES = 200
/** The digits that HUGEINT and DECIMAL can always hold. */
const MAX_DIGITS = 38
const BIGINT_DIGITS = 18
const DOUBLE_DIGITS = 15

const NUMBER = /^-?(?<whole>0|9\d*)(\.(?<fraction>\d+))?$/
/** Programs always write the sign of an exponent. */
const EXPONENT = /^-?\d(\.\d+)?[eE][-+]\d+$/
const BOOLEAN = /^(true|false)$/
const TIME = /\d\d:\d\d(?<seconds>:\d\d(\.(?<fraction>\d{1,6}))?)?/.source
const ZONE = /Z|[-+]\d\d(:?\d\d)?/.source
const YEAR_FIRST =
  /(?<yearFirst>\d{4})(?<separator>[-/.])(?<first>\d\d?)\k<separator>(?<second>\d\d?)/.source
const YEAR_LAST = /(?<first>\d\d?)(?<separator>[-/.])(?<second>\d\d?)\k<separator>\d{4}/.source
const MOMENT = new RegExp(
  `^(?:(?:${YEAR_FIRST}|${YEAR_LAST})(?<time>[T ]${TIME}(?<zone>${ZONE})?)?|(?<time>${TIME}))$`,
)

export interface TypedColumn {
  name: string
  type: ColumnType
  format?: string
  fractionDigits?: number
  zone?: string
  sqlType: string
  /** SQL that converts a text to `sqlType`, where a cast does not. */
  parse?: ((text: string) => string) | undefined
  /** Whether a double cannot hold all digits. */
  isLong?: boolean
  nulls: number
}

type Type = Omit<TypedColumn, 'name' | 'nulls'>
type Family = 'number' | 'boolean' | 'moment' | 'text'

interface Shape {
  family: Family
  isValid?: (bytes: Buffer, start: number, stop: number) => boolean
}

/** What comes first in dates that end in the year. */
export type DateOrder = 'day' | 'month'

const TEXT: Type = { type: 'text', sqlType: 'VARCHAR' }

/**
 * Finds a column's type from all of its values: each must be written as that type is printed, so
 * `007`, `+1`, `1e5`, `NaN`, `T` or ` 1` make the column text.
 *
 * A column has few shapes: that of `12.50` is `99.99`. A trie finds the shape of a value, and each
 * shape is classified once.
 */
export class ColumnTypes {
  missing = 0
  /** Set while the column holds only dates or times. */
  moments: Moments | undefined
  #family: Family | undefined
  #wholeDigits = 0
  #fractionDigits = 0
  #isWhole = true
  #hasExponent = false
  #fitsDouble = true
  /** Each node's child by the class of the next byte; 0 for none. */
  readonly #children = new Int32Array(WIDTH * MAX_NODES)
  readonly #prefixes = ['']
  readonly #shapes: (Shape | undefined)[] = []

  /** Takes the value from `start` to `stop`, which must not be empty. */
  note(bytes: Buffer, start: number, stop: number): void {
    if (this.#family === 'text') return
    const children = this.#children
    let node = 0
    for (let at = start; at < stop; at++) {
      const byte = bytes[at] as number
      node = children[node + (CLASSES[byte] as number)] || this.#grow(node, byte)
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

  /** @param rows their number, because the type must hold the sum, too. */
  toColumn(name: string, rows: number, orders: ReadonlyMap<string, DateOrder>): TypedColumn {
    return { name, nulls: this.missing, ...(this.#findType(rows, orders) ?? TEXT) }
  }

  #findType(rows: number, orders: ReadonlyMap<string, DateOrder>): Type | undefined {
    if (this.#family === 'boolean') return { type: 'boolean', sqlType: 'BOOLEAN' }
    if (this.#family === 'moment') return this.moments?.toType(orders)
    if (this.#family !== 'number') return undefined
    const digits = this.#wholeDigits + this.#fractionDigits
    const isLong = digits > DOUBLE_DIGITS
    if (this.#isWhole) {
      if (digits > MAX_DIGITS) return undefined
      return { type: 'integer', isLong, sqlType: digits > BIGINT_DIGITS ? 'HUGEINT' : 'BIGINT' }
    }
    if (!this.#hasExponent && digits + String(rows).length <= MAX_DIGITS)
      return { type: 'number', isLong, sqlType: `DECIMAL(${digits}, ${this.#fractionDigits})` }
    return this.#fitsDouble ? { type: 'number', sqlType: 'DOUBLE' } : undefined
  }

  /** Returns 0 if such values are text. */
  #grow(node: number, byte: number): number {
    const prefix = this.#prefixes[node / WIDTH] as string
    const child = this.#prefixes.length
    if (CLASSES[byte] === 0 || child === MAX_NODES || prefix.length === MAX_NUMBER_BYTES) return 0
    const isDigit = byte >= ZERO && byte <= NINE
    // One child serves all digits but a leading zero.
    const isLeading = prefix === '' || prefix === '-'
    const [low, high] = !isDigit || (isLeading && byte === ZERO) ? [byte, byte] : [ZERO, NINE]
    for (let each = low; each <= high; each++)
      if (!isLeading || each !== ZERO || byte === ZERO)
        this.#children[node + (CLASSES[each] as number)] = child * WIDTH
    this.#prefixes.push(prefix + String.fromCharCode(high))
    return child * WIDTH
  }

  #classify(shape: string): Shape {
    if (BOOLEAN.test(shape)) return { family: 'boolean' }
    const { whole, fraction = '' } = NUMBER.exec(shape)?.groups ?? {}
    if (whole !== undefined || EXPONENT.test(shape)) return this.#toNumber(shape, whole, fraction)
    const moment = MOMENT.exec(shape)?.groups
    if (!moment) return { family: 'text' }
    const layout = toLayout(shape)
    return {
      family: 'moment',
      isValid: (bytes, start, stop) => {
        this.moments ??= new Moments(layout, moment, bytes, stop)
        return this.moments.note(layout, moment, bytes, start, stop)
      },
    }
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

type Groups = Record<string, string | undefined>

/** Dates, times or timestamps that are all written alike. */
class Moments {
  readonly separator: string
  readonly isYearFirst: boolean
  readonly #time: string
  readonly #fraction: string
  readonly #zone: string
  readonly #layout: string
  canBeDayFirst = true
  canBeMonthFirst = true
  #hasPadded = false
  #hasUnpadded = false

  constructor(layout: string, groups: Groups, bytes: Buffer, stop: number) {
    const { separator = '', yearFirst, time = '', fraction = '', zone = '' } = groups
    this.separator = separator
    this.isYearFirst = yearFirst !== undefined
    this.#time = time.slice(0, time.length - zone.length)
    this.#fraction = fraction
    this.#zone = bytes.toString('latin1', stop - zone.length, stop)
    this.#layout = layout
  }

  /** Returns false if the value is written differently or does not exist. */
  note(layout: string, groups: Groups, bytes: Buffer, start: number, stop: number): boolean {
    if (layout !== this.#layout) return false
    const zone = this.#zone
    if (zone.length > 1 && bytes.toString('latin1', stop - zone.length, stop) !== zone) return false
    const timeAt = stop - zone.length - this.#time.length + (this.separator === '' ? 0 : 1)
    if (this.#time !== '' && !isTime(bytes, timeAt, this.#time.length > 6)) return false
    return this.separator === '' || this.#noteDate(groups, bytes, start)
  }

  #noteDate({ first = '', second = '' }: Groups, bytes: Buffer, start: number): boolean {
    const firstAt = this.isYearFirst ? start + 5 : start
    const secondAt = firstAt + first.length + 1
    const year = parseDigits(bytes, this.isYearFirst ? start : secondAt + second.length + 1, 4)
    const [one, two] = [
      parseDigits(bytes, firstAt, first.length),
      parseDigits(bytes, secondAt, second.length),
    ]
    this.#hasPadded ||= (one < 10 && first.length === 2) || (two < 10 && second.length === 2)
    this.#hasUnpadded ||= first.length === 1 || second.length === 1
    if (this.isYearFirst) return isDay(year, one, two)
    this.canBeDayFirst &&= isDay(year, two, one)
    this.canBeMonthFirst &&= isDay(year, one, two)
    return this.canBeDayFirst || this.canBeMonthFirst
  }

  /** Undefined if day and month are ambiguous, or unevenly zero-padded. */
  toType(orders: ReadonlyMap<string, DateOrder>): Type | undefined {
    const [separator, zone] = [this.separator, this.#zone]
    const clock = ['HH', 'mm', 'ss'].slice(0, this.#time.length > 6 ? 3 : 2).join(':')
    const time = this.#fraction === '' ? clock : `${clock}.${'S'.repeat(this.#fraction.length)}`
    if (separator === '') return { type: 'time', format: time, sqlType: 'VARCHAR' }
    const order = this.isYearFirst ? 'year' : orders.get(separator)
    if (!order || (this.#hasPadded && this.#hasUnpadded)) return undefined
    const [day, month] = this.#hasUnpadded ? ['D', 'M'] : ['DD', 'MM']
    const parts = {
      year: ['YYYY', month, day],
      day: [day, month, 'YYYY'],
      month: [month, day, 'YYYY'],
    }
    const date = parts[order].join(separator)
    const isDate = this.#time === ''
    const between = this.#time.slice(0, 1)
    const isIso = order === 'year' && separator === '-' && !this.#hasUnpadded
    // DuckDB's patterns have no fraction of arbitrary length.
    if (!isIso && this.#fraction !== '') return undefined
    const pattern = date.replace('YYYY', '%Y').replace(/M+/, '%m').replace(/D+/, '%d')
    const timePattern = isDate
      ? ''
      : `${between}${clock.replace('HH', '%H').replace('mm', '%M').replace('ss', '%S')}`
    const local = (text: string) =>
      zone === '' ? text : `left(${text}, length(${text}) - ${zone.length})`
    const isCast = isIso && (isDate || clock.length > 5)
    return {
      type: isDate ? 'date' : 'timestamp',
      format: isDate ? date : date + between + time + zone,
      fractionDigits: this.#fraction.length,
      zone,
      sqlType: isDate ? 'DATE' : 'TIMESTAMP',
      parse: isCast
        ? zone === ''
          ? undefined
          : local
        : (text) => `strptime(${local(text)}, '${pattern}${timePattern}')`,
    }
  }
}

/** Day or month first, by separator: `25/12/2024` decides for `03/04/2024` of all columns. */
export function findDateOrders(columns: readonly ColumnTypes[]): Map<string, DateOrder> {
  const undecided = columns.flatMap(({ moments }) =>
    moments && !moments.isYearFirst ? moments : [],
  )
  const orders = new Map<string, DateOrder>()
  for (const [separator, moments] of Map.groupBy(undecided, ({ separator }) => separator)) {
    const day = moments.every(({ canBeDayFirst }) => canBeDayFirst)
    const month = moments.every(({ canBeMonthFirst }) => canBeMonthFirst)
    if (day !== month) orders.set(separator, day ? 'day' : 'month')
  }
  return orders
}

/** A shape, regardless of leading zeros and the digits of day and month. */
const toLayout = (shape: string) =>
  shape
    .replaceAll('0', '9')
    .replace(/^9{4}([-/.])9+[-/.]9+/, 'Y$1')
    .replace(/^9+([-/.])9+[-/.]9+/, 'D$1')

function parseDigits(bytes: Buffer, start: number, count: number): number {
  let value = 0
  for (let at = start; at < start + count; at++) value = value * 10 + (bytes[at] as number) - ZERO
  return value
}

const isTime = (bytes: Buffer, at: number, hasSeconds: boolean) =>
  parseDigits(bytes, at, 2) < 24 &&
  parseDigits(bytes, at + 3, 2) < 60 &&
  (!hasSeconds || parseDigits(bytes, at + 6, 2) < 60)

const DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]

function isDay(year: number, month: number, day: number): boolean {
  if (year < 1 || month < 1 || month > 12 || day < 1) return false
  const isLeapYear = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0)
  return day <= (DAYS[month - 1] as number) + (month === 2 && isLeapYear ? 1 : 0)
}
