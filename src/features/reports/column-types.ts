import type { ColumnType } from './contract.ts'
import { type DateOrder, isDigit, Moments, typedMoments } from './moments.ts'

/** DuckDB's whole numbers have 38 digits at least, and so have its decimals. */
const MAX_DIGITS = 38
const BIGINT_DIGITS = 18
/** Numbers of that many digits print back from a double whatever they are. */
const DOUBLE_DIGITS = 15
/**
 * Longer ones are texts, so that the scan may cut every value that is longer than a text is shown.
 */
const MAX_NUMBER_BYTES = 200

const MINUS = 45
const PLUS = 43
const POINT = 46
const ZERO = 48
const LOWER_E = 101
const UPPER_E = 69
const T = 116

type Family = 'none' | 'number' | 'boolean' | 'moment' | 'text'

/** What a column turned out to hold. */
export interface TypedColumn {
  name: string
  type: ColumnType
  /** How dates and times are written in the file. */
  format?: string
  layout?: { hasSeconds: boolean; fractionDigits: number; zone: string }
  /** DuckDB's type. */
  sqlType: string
  /**
   * What makes a value that DuckDB can cast to that type of a text, both as SQL; absent where the
   * text is one.
   */
  cast: ((text: string) => string) | undefined
  /** Some of its numbers have more digits than a double keeps. */
  isLong?: boolean
  /** How many values are missing. */
  nulls: number
}

/**
 * Finds the type of a column from all of its values. A type is chosen only if each value is written
 * as that type would be written: `007`, `+1`, `1e5`, `NaN`, `T` or ` 1` make texts of a column,
 * because as a number or a boolean they would be shown as something that is not in the file. No
 * value is of two types, so that the first one decides which type it may be.
 */
export class ColumnTypes {
  missing = 0
  #family: Family = 'none'
  // Of numbers: the most digits before and after the point.
  #wholeDigits = 0
  #scale = 0
  #isWhole = true
  #hasExponent = false
  #fitsDouble = true
  #moments: Moments | undefined

  /** Takes a value into account; it must not be empty. */
  note(bytes: Buffer, start: number, stop: number): void {
    switch (this.#family) {
      case 'text':
        return
      case 'number':
        if (!this.#noteNumber(bytes, start, stop)) this.#family = 'text'
        return
      case 'boolean':
        if (!isBoolean(bytes, start, stop)) this.#family = 'text'
        return
      case 'moment':
        if (!this.#moments?.note(bytes, start, stop)) this.#family = 'text'
        return
      default:
        this.#family = this.#familyOf(bytes, start, stop)
    }
  }

  /** The column's dates or times, if it holds nothing else. */
  get moments(): Moments | undefined {
    return this.#family === 'moment' ? this.#moments : undefined
  }

  /**
   * @param rows how many there are: their sum must fit, too.
   * @param orders of day and month, by all columns of the file.
   */
  typed(name: string, rows: number, orders: ReadonlyMap<string, DateOrder>): TypedColumn {
    const nulls = this.missing
    if (this.#family === 'boolean') return { name, nulls, type: 'boolean', ...direct('BOOLEAN') }
    if (this.#family === 'number') {
      const numeric = this.#numeric(rows)
      if (numeric) return { name, nulls, ...numeric }
    }
    const moments = this.moments && typedMoments(this.moments, orders)
    if (moments) return { name, nulls, ...moments }
    return { name, nulls, type: 'text', ...direct('VARCHAR') }
  }

  #familyOf(bytes: Buffer, start: number, stop: number): Family {
    if (this.#noteNumber(bytes, start, stop)) return 'number'
    if (isBoolean(bytes, start, stop)) return 'boolean'
    this.#moments = Moments.of(bytes, start, stop)
    return this.#moments ? 'moment' : 'text'
  }

  #numeric(rows: number): Omit<TypedColumn, 'name' | 'nulls'> | undefined {
    const digits = this.#wholeDigits + this.#scale
    const isLong = digits > DOUBLE_DIGITS
    if (this.#isWhole) {
      if (digits > MAX_DIGITS) return undefined
      return { type: 'integer', isLong, ...direct(digits > BIGINT_DIGITS ? 'HUGEINT' : 'BIGINT') }
    }
    if (!this.#hasExponent && digits + String(rows).length <= MAX_DIGITS)
      return { type: 'number', isLong, ...direct(`DECIMAL(${digits}, ${this.#scale})`) }
    return this.#fitsDouble ? { type: 'number', ...direct('DOUBLE') } : undefined
  }

  /** `-12`, `0.50`, or `1.5e-07` with a signed exponent, as programs write it. */
  #noteNumber(bytes: Buffer, start: number, stop: number): boolean {
    if (stop - start > MAX_NUMBER_BYTES) return false
    let at = start
    if (bytes[at] === MINUS) at++
    const first = at
    while (isDigit(bytes[at] as number)) at++
    const whole = at - first
    if (whole === 0 || (whole > 1 && bytes[first] === ZERO)) return false
    if (whole > this.#wholeDigits) this.#wholeDigits = whole
    if (at === stop) {
      // A zero has no sign when it is printed.
      if (first > start && whole === 1 && bytes[first] === ZERO) this.#isWhole = false
      if (whole > DOUBLE_DIGITS && this.#fitsDouble)
        this.#fitsDouble = printsBack(bytes.toString('latin1', start, stop))
      return true
    }
    this.#isWhole = false
    if (bytes[at] === POINT) {
      const point = at++
      while (isDigit(bytes[at] as number)) at++
      const scale = at - point - 1
      if (scale === 0) return false
      if (scale > this.#scale) this.#scale = scale
    }
    if (at === stop) {
      if (at - first > DOUBLE_DIGITS && this.#fitsDouble)
        this.#fitsDouble = printsBack(bytes.toString('latin1', start, stop))
      return true
    }
    this.#hasExponent = true
    return (
      whole === 1 &&
      isExponent(bytes, at, stop) &&
      printsBack(bytes.toString('latin1', start, stop))
    )
  }
}

/** What DuckDB's CSV reader casts by itself. */
const direct = (sqlType: string) => ({ sqlType, cast: undefined })

function isExponent(bytes: Buffer, start: number, stop: number): boolean {
  if (bytes[start] !== LOWER_E && bytes[start] !== UPPER_E) return false
  if (bytes[start + 1] !== MINUS && bytes[start + 1] !== PLUS) return false
  let at = start + 2
  while (isDigit(bytes[at] as number)) at++
  return at === stop && at > start + 2
}

/** Whether a double keeps all digits of a number. */
export function printsBack(text: string): boolean {
  const value = Number(text)
  return Number.isFinite(value) && digitsOf(value.toExponential()) === digitsOf(text)
}

/** The digits that count: without the zeros before the first one and after the last one. */
function digitsOf(number: string): string {
  const [mantissa = ''] = number.split(/e/i)
  return mantissa.replace(/[-.]/g, '').replace(/^0+|0+$/g, '')
}

/** `true` or `false`, as JSON has it. */
function isBoolean(bytes: Buffer, start: number, stop: number): boolean {
  const length = stop - start
  if (length !== 4 && length !== 5) return false
  return bytes.toString('latin1', start, stop) === (bytes[start] === T ? 'true' : 'false')
}
