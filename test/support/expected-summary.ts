import { isUtf8 } from 'node:buffer'
import { parse } from 'csv-parse/sync'

/**
 * What a column's summary must say, worked out from all of its values by other means than the
 * service's.
 */
interface ExpectedColumn {
  type: string
  format: string | undefined
  nulls: number
  distinct: number
  min: string | null
  max: string | null
}

interface ExpectedGroup {
  key: string | null
  count: number
  sum: string | null
}

interface Expected {
  rows: string[][]
  columns: ExpectedColumn[]
}

/** A number of any size: `units` of `10 ** -scale`. */
interface Decimal {
  units: bigint
  scale: number
}

const DECIMAL = /^-?(0|[1-9]\d*)(\.\d+)?$/
const EXPONENT = /^-?\d(\.\d+)?[eE][+-]\d+$/
const SHAPES = [
  { order: 'ymd', pattern: /^(?<y>\d{4})(?<s>[-/.])(?<m>\d{1,2})\k<s>(?<d>\d{1,2})(?<rest>.*)$/ },
  { order: 'dmy', pattern: /^(?<d>\d{1,2})(?<s>[-/.])(?<m>\d{1,2})\k<s>(?<y>\d{4})(?<rest>.*)$/ },
  { order: 'mdy', pattern: /^(?<m>\d{1,2})(?<s>[-/.])(?<d>\d{1,2})\k<s>(?<y>\d{4})(?<rest>.*)$/ },
]
const TIME = '([01]\\d|2[0-3]):[0-5]\\d(:[0-5]\\d(\\.\\d{1,6})?)?'
const REST = new RegExp(`^([T ]${TIME}(Z|[+-]\\d\\d(:?\\d\\d)?)?)?$`)

/**
 * All records by an independent reader, without a byte order mark and a `sep=` line; those that no
 * one can read are empty.
 */
export function recordsOf(bytes: Buffer, delimiter: string): string[][] {
  // As Latin-1 each byte is a character, whatever it is.
  const text = bytes
    .toString('latin1')
    .replace(/^\xef\xbb\xbf/, '')
    .replace(/^sep=.(\r\r\n|\r\n|\n|\r)/, '')
  const parsed = parse(text, {
    delimiter,
    relax_column_count: true,
    relax_quotes: true,
    record_delimiter: ['\r\r\n', '\r\n', '\n', '\r'],
    raw: true,
  }) as unknown as { record: string[]; raw: string }[]
  return parsed.map(({ record, raw }) =>
    isReadable(raw) ? record.map((field) => Buffer.from(field, 'latin1').toString()) : [],
  )
}

const isReadable = (raw: string) =>
  raw.replace(/[\r\n]+$/, '').length <= 1_000_000 &&
  !raw.includes('\0') &&
  isUtf8(Buffer.from(raw, 'latin1'))

/** The names of columns: as they are, unless they are missing or were there before. */
export function isNamedLike(names: string[], header: string[]): boolean {
  const isKept = names.every((name, index) => {
    const given = header[index] as string
    return given === '' || header.indexOf(given) < index ? !header.includes(name) : name === given
  })
  return isKept && new Set(names).size === header.length
}

export function expectedOf(header: string[], records: string[][]): Expected {
  const rows = records.filter(({ length }) => length === header.length)
  const values = header.map((_, index) => rows.map((row) => row[index] as string))
  const orders = ordersOf(values)
  return { rows, columns: values.map((column) => columnOf(column, orders)) }
}

function columnOf(values: string[], orders: Map<string, string>): ExpectedColumn {
  const present = values.filter((value) => value !== '')
  const nulls = values.length - present.length
  const { type, format, key, show } = kindOf(present, values.length, orders)
  const sorted = [...new Map(present.map((value) => [String(key(value)), value])).values()].sort(
    comparing(key),
  )
  const [min, max] = [sorted.at(0), sorted.at(-1)].map((value) =>
    value === undefined ? null : show(value),
  )
  return { type, format, nulls, distinct: sorted.length, min: min ?? null, max: max ?? null }
}

type Key = (value: string) => bigint | number | string

function comparing(key: Key) {
  return (a: string, b: string) => {
    const [left, right] = [key(a), key(b)]
    if (typeof left === 'string' || typeof right === 'string')
      return compareTexts(String(left), String(right))
    return left < right ? -1 : left > right ? 1 : 0
  }
}

const compareTexts = (a: string, b: string) => Buffer.compare(Buffer.from(a), Buffer.from(b))

function kindOf(values: string[], rows: number, orders: Map<string, string>) {
  const text = {
    type: 'text',
    format: undefined,
    key: (value: string) => value as string | bigint | number,
    show: shorten,
  }
  if (values.length === 0) return text
  const all = (pattern: RegExp) => values.every((value) => pattern.test(value))
  if (all(DECIMAL) && values.every((value) => value.length <= 200)) {
    const scale = Math.max(...values.map((value) => decimalOf(value).scale))
    const whole = Math.max(...values.map((value) => value.replace(/^-|\..*$/g, '').length))
    const number = {
      ...text,
      key: (value: string) => scaled(decimalOf(value), scale),
      show: (value: string) => plain(decimalOf(value)),
    }
    if (scale === 0 && !values.includes('-0'))
      return whole <= 38 ? { ...number, type: 'integer' } : text
    if (whole + scale + String(rows).length <= 38) return { ...number, type: 'number' }
  }
  if (
    values.every(
      (value) =>
        (DECIMAL.test(value) || EXPONENT.test(value)) && value.length <= 200 && keepsDigits(value),
    )
  )
    return {
      ...text,
      type: 'number',
      key: Number,
      show: (value: string) => plain(decimalOf(String(Number(value)))),
    }
  if (all(/^(true|false)$/)) return { ...text, type: 'boolean' }
  if (all(new RegExp(`^${TIME}$`)) && new Set(values.map(({ length }) => length)).size === 1)
    return { ...text, type: 'time', format: clock(values[0] as string) }
  const moment = momentOf(values, orders)
  return moment ? { ...text, ...moment, show: moment.key } : text
}

/** Each order that all dates with a separator allow; those without exactly one are texts. */
function ordersOf(columns: string[][]): Map<string, string> {
  const candidates = new Map<string, string[]>()
  for (const values of columns) {
    const present = values.filter((value) => value !== '')
    const dated = SHAPES.filter(
      ({ order }) => present.length > 0 && present.every((value) => partsOf(value, order)),
    )
    const separator = dated[0] && partsOf(present[0] as string, dated[0].order)?.separator
    if (separator === undefined || dated[0]?.order === 'ymd' || !isAlike(present)) continue
    const before = candidates.get(separator) ?? ['dmy', 'mdy']
    candidates.set(
      separator,
      before.filter((order) => dated.some((shape) => shape.order === order)),
    )
  }
  return new Map(
    [...candidates].flatMap(([separator, [order, other]]) =>
      order && !other ? [[separator, order]] : [],
    ),
  )
}

function partsOf(value: string, order: string) {
  const shape = SHAPES.find((candidate) => candidate.order === order)
  const { y = '', m = '', d = '', s = '', rest = '' } = shape?.pattern.exec(value)?.groups ?? {}
  const date = new Date(Date.UTC(2000, Number(m) - 1, Number(d)))
  date.setUTCFullYear(Number(y), Number(m) - 1, Number(d))
  const exists =
    y !== '' &&
    Number(y) > 0 &&
    date.getUTCMonth() + 1 === Number(m) &&
    date.getUTCDate() === Number(d)
  return exists && REST.test(rest)
    ? {
        iso: `${y}-${m.padStart(2, '0')}-${d.padStart(2, '0')}`,
        month: m,
        day: d,
        separator: s,
        rest,
      }
    : undefined
}

/** The same separator, and the same time but for its digits; zones are the same. */
const shapeOf = (value: string) => {
  const rest = value.replace(/^[\d]+[-/.]\d+[-/.]\d+/, '')
  return `${value.replace(/\d/g, '').slice(0, 1)} ${rest.slice(0, 9).replace(/\d/g, '9')}${rest.slice(9).replace(/(?<=^\.\d*)\d/g, '9')}`
}

const isAlike = (values: string[]) =>
  new Set(values.map(shapeOf)).size === 1 &&
  new Set(values.map((value) => /^\d{4}/.test(value))).size === 1

function momentOf(values: string[], orders: Map<string, string>) {
  const separator = /[-/.]/.exec(values[0] as string)?.[0] ?? ''
  const order = /^\d{4}/.test(values[0] as string) ? 'ymd' : orders.get(separator)
  if (order === undefined || !isAlike(values)) return undefined
  const parts = values.map((value) => partsOf(value, order))
  if (!parts.every((each) => each !== undefined)) return undefined
  const numbers = parts.flatMap(({ month, day }) => [month, day])
  const hasShort = numbers.some(({ length }) => length === 1)
  if (hasShort && numbers.some((number) => number.startsWith('0'))) return undefined
  const [day, month] = hasShort ? ['D', 'M'] : ['DD', 'MM']
  const date = { ymd: ['YYYY', month, day], dmy: [day, month, 'YYYY'], mdy: [month, day, 'YYYY'] }[
    order
  ]?.join(separator)
  const rest = parts[0]?.rest ?? ''
  const isIso = order === 'ymd' && separator === '-' && !hasShort
  if (rest.includes('.') && !isIso) return undefined
  const [, time = '', zone = ''] = /^(.[\d:.]+)(.*)$/.exec(rest) ?? []
  const key = (value: string) => {
    const { iso = '', rest = '' } = partsOf(value, order) ?? {}
    const [, clock = '', zone = ''] = /^.([\d:.]+)(.*)$/.exec(rest) ?? []
    return rest === '' ? iso : `${iso}T${clock.length === 5 ? `${clock}:00` : clock}${zone}`
  }
  if (time === '') return { type: 'date', format: date, key }
  return { type: 'timestamp', format: `${date}${time[0]}${clock(time.slice(1))}${zone}`, key }
}

const clock = (time: string) =>
  ['HH', 'mm', 'ss'].slice(0, time.split(':').length).join(':') +
  (time.includes('.') ? `.${'S'.repeat((time.split('.')[1] ?? '').length)}` : '')

function shorten(text: string): string {
  const characters = [...text]
  return characters.length > 200 ? `${characters.slice(0, 200).join('')}…` : text
}

function decimalOf(text: string): Decimal {
  const [mantissa = '', exponent = '0'] = text.toLowerCase().split('e')
  const [whole = '', fraction = ''] = mantissa.split('.')
  const power = Number(exponent) - fraction.length
  const units = BigInt(whole + fraction)
  return power > 0 ? { units: units * 10n ** BigInt(power), scale: 0 } : { units, scale: -power }
}

const scaled = ({ units, scale }: Decimal, to: number) => units * 10n ** BigInt(to - scale)

/** Without exponents, and zeros that say nothing. */
function plain({ units, scale }: Decimal): string {
  const digits = String(units < 0n ? -units : units).padStart(scale + 1, '0')
  const [whole, fraction] = [
    digits.slice(0, digits.length - scale),
    digits.slice(digits.length - scale).replace(/0+$/, ''),
  ]
  return `${units < 0n ? '-' : ''}${whole}${fraction === '' ? '' : `.${fraction}`}`
}

/** The same of a number as the service shows it. */
export const plainOf = (shown: unknown) => (shown === null ? null : plain(decimalOf(String(shown))))

function keepsDigits(text: string): boolean {
  const value = Number(text)
  if (!Number.isFinite(value)) return false
  const [shown, given] = [decimalOf(String(value)), decimalOf(text)]
  const scale = Math.max(shown.scale, given.scale)
  return scaled(shown, scale) === scaled(given, scale)
}

/** The rows counted by one column, as it is written, and summed up by another one: exactly. */
export function expectedGroups(rows: string[][], groupBy: number, value = -1): ExpectedGroup[] {
  const groups = [...Map.groupBy(rows, (row) => row[groupBy] as string)].map(([key, members]) => {
    const values = members.map((row) => row[value] ?? '').filter((text) => text !== '')
    const decimals = values.map(decimalOf)
    const scale = Math.max(0, ...decimals.map((decimal) => decimal.scale))
    const units = decimals.reduce((sum, decimal) => sum + scaled(decimal, scale), 0n)
    return { key, count: members.length, sum: values.length === 0 ? null : plain({ units, scale }) }
  })
  const bytes = ({ key }: { key: string }) => Buffer.from(key)
  const sorted = groups.sort(
    (a, b) =>
      b.count - a.count ||
      Number(a.key === '') - Number(b.key === '') ||
      Buffer.compare(bytes(a), bytes(b)),
  )
  return sorted.map(({ key, ...group }) => ({ key: key === '' ? null : shorten(key), ...group }))
}
