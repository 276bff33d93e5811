import { type Column, printsBack } from './column-types.ts'
import {
  type ColumnSummary,
  MAX_TEXT_CHARACTERS,
  type Summary,
  type SummaryOptions,
} from './contract.ts'
import { InvalidCsvError } from './csv.ts'
import { KEY, type Queries, type Row } from './duck.ts'

const BINS = 20
const TOP = 10
const SHARES = [0.05, 0.25, 0.5, 0.75, 0.95]
/** More rows get approximate quantiles and distinct counts, to save memory. */
const MAX_EXACT_ROWS = 1_000_000
const MAX_GROUPS = 1_000
/** No type of DuckDB holds the sum of many HUGEINTs: they are summed in two parts. */
const PART = 10n ** 19n
/** Null if squares would overflow. */
const DEVIATION =
  'case when max(abs(v)) < 1e150 then ' +
  'stddev_samp(case when abs(v) < 1e150 then v end) end as deviation'

type Value = ColumnSummary['min']
type Show = (value: number | null) => Value

export const isApproximate = (rows: number) => rows > MAX_EXACT_ROWS
const isNumeric = ({ type }: Column) => type === 'integer' || type === 'number'
const isMoment = ({ type }: Column) => type === 'date' || type === 'timestamp'

export async function summariseColumn(
  duck: Queries,
  column: Column,
  rows: number,
): Promise<ColumnSummary> {
  const { name, type, format, nulls } = column
  const isScalar = isNumeric(column) || isMoment(column)
  const summarise = isScalar ? summariseScalars : summariseTexts
  const { distinct, ...figures } = await summarise(duck, column, rows)
  const form = format === undefined ? {} : { format }
  return { name, type, ...form, nulls, distinct: Math.min(distinct, rows - nulls), ...figures }
}

function selectDistinct({ sql }: Column, rows: number): string {
  const count = isApproximate(rows) ? `approx_count_distinct(${sql})` : `count(distinct ${sql})`
  return `${count}::double as "distinct"`
}

type Figures = Omit<ColumnSummary, 'name' | 'type' | 'format' | 'nulls'>

/** Expects a column with at least one value. */
async function summariseScalars(duck: Queries, column: Column, rows: number): Promise<Figures> {
  const { sql, isLong, nulls } = column
  const present = rows - nulls
  const v = isMoment(column) ? `epoch(${sql})` : `${sql}::double`
  const source = `(select ${v} as v, ${sql} from data)`
  // Interpolation would round numbers that a double cannot hold.
  const exact = isLong ? `quantile_disc(${sql}` : 'quantile_cont(v'
  const quantiled = `${isApproximate(rows) ? 'approx_quantile(v' : exact}, [${SHARES}])`
  const figures = await duck.row(`select min(${sql})::varchar as min, max(${sql})::varchar as max,
    min(v) as low, max(v) as high, ${selectDistinct(column, rows)},
    ${isMoment(column) ? 'avg(v) as mean' : `${selectSum(column)}, ${DEVIATION}`},
    ${quantiled}::varchar[] as quantiles from ${source}`)
  const show: Show = (value) => (isMoment(column) ? showSeconds(value, column) : value)
  const showText = isMoment(column) ? (text: string) => showMoment(text, column) : showNumber
  const showQuantile = isMoment(column) ? (text: string) => show(Number(text)) : showNumber
  const [min, max] = [showText(String(figures['min'])), showText(String(figures['max']))]
  const quantiles = figures['quantiles'] as string[]
  const histogram = await countBins(duck, source, figures, present, show)
  // The outer edges are exact, not rounded to doubles.
  const [first, last] = [histogram.at(0), histogram.at(-1)]
  if (first) first.from = min
  if (last) last.to = max
  return {
    distinct: Number(figures['distinct']),
    min,
    max,
    mean: isMoment(column) ? show(toFinite(figures['mean'])) : readSum(figures, present).mean,
    ...(isNumeric(column) && { standardDeviation: toFinite(figures['deviation']) }),
    quantiles: Object.fromEntries(
      SHARES.map((share, index) => [share, showQuantile(quantiles[index] ?? '')]),
    ),
    histogram,
  }
}

async function countBins(
  duck: Queries,
  source: string,
  { low, high }: Row,
  present: number,
  show: Show,
) {
  const [min, max] = [Number(low), Number(high)]
  const width = (max - min) / BINS
  if (!Number.isFinite(width) || width === 0)
    return [{ from: show(min), to: show(max), count: present }]
  const rows = await duck.rows(`select count(*)::double as count,
    least(${BINS - 1}, floor((v - '${min}'::double) / '${width}'::double))::int as bin
    from ${source} where v is not null group by bin`)
  const counts = new Map(rows.map(({ bin, count }) => [Number(bin), Number(count)]))
  return Array.from({ length: BINS }, (_, bin) => ({
    from: show(min + bin * width),
    to: show(min + (bin + 1) * width),
    count: counts.get(bin) ?? 0,
  }))
}

async function summariseTexts(duck: Queries, column: Column, rows: number): Promise<Figures> {
  const { sql } = column
  const text = `${sql}::varchar`
  const figures = await duck.row(`select ${selectText(`min(${text})`)} as min,
    ${selectText(`max(${text})`)} as max, ${selectDistinct(column, rows)} from data`)
  const top = await duck.rows(`select ${selectText(text)} as value, count(*)::double as count
    from data where ${sql} is not null group by ${sql} order by count desc, ${sql} limit ${TOP}`)
  return {
    distinct: Number(figures['distinct']),
    min: readText(figures['min']),
    max: readText(figures['max']),
    top: top.map(({ value, count }) => ({ value: readText(value) ?? '', count: Number(count) })),
  }
}

/** @throws InvalidCsvError if a column is missing, or `value` is not numeric. */
export function findGroupColumns(
  columns: readonly Column[],
  { groupBy, value }: Pick<SummaryOptions, 'groupBy' | 'value'>,
) {
  if (groupBy === null) return undefined
  const found = {
    groupBy: findColumn(columns, groupBy),
    value: value === null ? undefined : findColumn(columns, value),
  }
  if (!found.value || isNumeric(found.value)) return found
  throw new InvalidCsvError(
    `The column "${value}" cannot be summed up: it does not hold numbers only`,
  )
}

type GroupColumns = NonNullable<ReturnType<typeof findGroupColumns>>

function findColumn(columns: readonly Column[], name: string): Column {
  const column = columns.find((candidate) => candidate.name === name)
  if (column) return column
  const names = columns.map(({ name }) => `"${name}"`).join(', ')
  throw new InvalidCsvError(`There is no column "${name}"; the file has ${names}`.slice(0, 900))
}

/** @param key the column to group by, as written in the file. */
export async function summariseGroups(
  duck: Queries,
  { groupBy, value }: GroupColumns,
  key = KEY,
): Promise<Summary['groups']> {
  const sum = value ? `${selectSum(value)}, count(${value.sql})::double as present` : 'null as sum'
  const rows = await duck.rows(`select ${selectText(key)} as text, count(*)::double as count, ${sum}
    from data group by ${key} order by count desc, ${key} nulls last limit ${MAX_GROUPS}`)
  const { total } = await duck.row(
    `select count(*)::double as total from (select ${key} from data group by ${key})`,
  )
  const first = rows.map((row) => ({
    key: readText(row['text']),
    count: Number(row['count']),
    ...readSum(row, Number(row['present'])),
  }))
  return { groupBy: groupBy.name, value: value?.name ?? null, total: Number(total), first }
}

function selectSum({ sql, sqlType }: Column): string {
  if (sqlType !== 'HUGEINT') return `sum(${sql})::varchar as sum, null as parts`
  return `sum(${sql} % ${PART}::hugeint)::varchar as sum,
    sum(${sql} // ${PART}::hugeint)::varchar as parts`
}

function readSum({ sum, parts }: Row, count: number): { sum: Value; mean: number | null } {
  if (typeof sum !== 'string') return { sum: null, mean: null }
  const text = typeof parts === 'string' ? String(BigInt(parts) * PART + BigInt(sum)) : sum
  return { sum: showNumber(text), mean: toFinite(Number(text) / count) }
}

/** DuckDB's bindings drop a leading byte order mark: the space prevents that. */
const selectText = (text: string) =>
  `' ' || left(${text}, ${MAX_TEXT_CHARACTERS}) ||
    case when length(${text}) > ${MAX_TEXT_CHARACTERS} then '…' else '' end`

const readText = (value: unknown) => (typeof value === 'string' ? value.slice(1) : null)

/** JSON has neither NaN nor Infinity. */
const toFinite = (value: unknown) =>
  typeof value === 'number' && Number.isFinite(value) ? value : null

function showNumber(text: string): Value {
  const value = Number(text)
  if (!Number.isFinite(value)) return null
  const shortest = text.includes('.') ? text.replace(/\.?0+$/, '') : text
  const isKept = String(value) === shortest || (/[.e]/.test(text) && printsBack(text))
  // Adding 0 turns -0 into 0.
  return isKept ? value + 0 : shortest
}

function showMoment(text: string, { fractionDigits = 0, zone = '' }: Column): string {
  const [date = '', time] = text.split(' ')
  if (time === undefined) return date
  const [seconds, fraction = ''] = time.split('.')
  const decimals = fractionDigits > 0 ? `.${fraction.padEnd(fractionDigits, '0')}` : ''
  return `${date}T${seconds}${decimals}${zone}`
}

/** In the precision of the file, at least milliseconds. */
function showSeconds(seconds: number | null, column: Column): Value {
  const { type, fractionDigits = 0, zone = '' } = column
  const micros = Math.round((seconds ?? Number.NaN) * 1e6)
  const date = new Date(Math.floor(micros / 1e6) * 1_000)
  if (Number.isNaN(date.getTime())) return null
  const [day = '', time = ''] = date.toISOString().slice(0, -5).split('T')
  const fraction = String(micros - date.getTime() * 1_000).padStart(6, '0')
  const digits = Number(fraction.slice(fractionDigits, 3)) > 0 ? 3 : fractionDigits
  if (type === 'date' && time === '00:00:00' && digits === 0) return day
  return `${day}T${time}${digits > 0 ? `.${fraction.slice(0, digits)}` : ''}${zone}`
}
