import type { ColumnSummary, ColumnType, Value } from './contract.ts'
import type { Queries, Row } from './duck.ts'

const BINS = 20
const TOP = 10
const SHARES = [0.05, 0.25, 0.5, 0.75, 0.95]
/** Up to here quantiles and distinct values are exact: that takes memory for each row. */
const MAX_EXACT_ROWS = 1_000_000
const MAX_TEXT_CHARACTERS = 200

/** A column of the table `data`. */
export interface Column {
  name: string
  type: ColumnType
}

const TYPES: Record<string, ColumnType> = {
  BIGINT: 'integer',
  DOUBLE: 'number',
  BOOLEAN: 'boolean',
  DATE: 'date',
  TIMESTAMP: 'timestamp',
  'TIMESTAMP WITH TIME ZONE': 'timestamp',
  TIME: 'time',
}

/** The columns that DuckDB finds in a table or a CSV. */
export async function columnsOf(duck: Queries, source: string): Promise<Column[]> {
  const rows = await duck.rows(`describe select * from ${source}`)
  return rows.map(({ column_name, column_type }) => ({ name: String(column_name), type: TYPES[String(column_type)] ?? 'text' }))
}

/** A name as SQL has it. */
export const identifier = (name: string) => `"${name.replaceAll('"', '""')}"`

/** A text no longer than anyone reads; SQL that gives it. */
export const shortText = (expression: string) => `left(${expression}::varchar, ${MAX_TEXT_CHARACTERS})`

/** The column's numbers, as SQL: seconds since 1970 for dates; null for what is no finite one. */
export function numbersOf({ name, type }: Column): string {
  const column = identifier(name)
  if (type === 'integer') return `${column}::double`
  if (type === 'number') return `case when isfinite(${column}) then ${column} end`
  return `case when isfinite(${column}) then epoch(${column}) end`
}

export const isNumeric = ({ type }: Column) => type === 'integer' || type === 'number'

const isDate = ({ type }: Column) => type === 'date' || type === 'timestamp'

export const summariseColumn = (duck: Queries, column: Column, rows: number): Promise<ColumnSummary> =>
  isNumeric(column) || isDate(column) ? summariseNumbers(duck, column, rows) : summariseTexts(duck, column, rows)

async function summariseNumbers(duck: Queries, column: Column, rows: number): Promise<ColumnSummary> {
  const source = `(select ${numbersOf(column)} as v, ${identifier(column.name)} as raw from data)`
  const exact = rows <= MAX_EXACT_ROWS
  const figures = await duck.row(`select count(v)::double as present, min(v) as min, max(v) as max,
    ${exact ? 'count(distinct v)' : 'approx_count_distinct(raw)'}::double as "distinct", ${moments(column)},
    ${exact ? 'quantile_cont' : 'approx_quantile'}(v, [${SHARES}]) as quantiles from ${source}`)
  const show = isDate(column) ? isoOf(column) : (value: number | null) => value
  const present = Number(figures['present'])
  const [min, max] = [numberOf(figures['min']), numberOf(figures['max'])]
  return {
    ...column,
    nulls: rows - present,
    distinct: Math.min(Number(figures['distinct']), present),
    min: show(min),
    max: show(max),
    mean: show(numberOf(figures['mean'])),
    ...(isNumeric(column) && { standardDeviation: numberOf(figures['deviation']) }),
    quantiles: quantilesOf(figures, show),
    histogram: min === null || max === null ? [] : await histogramOf(duck, source, min, max, show),
  }
}

/** Scaled down where the squares of the largest numbers would be too large. */
function moments(column: Column): string {
  const deviation = `case when max(abs(v)) < 1e150 then stddev_samp(case when abs(v) < 1e150 then v end) end`
  return `avg(v) as mean, ${isNumeric(column) ? deviation : 'null'} as deviation`
}

function quantilesOf({ quantiles }: Row, show: (value: number | null) => Value): Record<string, Value> {
  const values = Array.isArray(quantiles) ? quantiles : []
  return Object.fromEntries(SHARES.map((share, index) => [String(share), show(numberOf(values[index]))]))
}

async function histogramOf(duck: Queries, source: string, min: number, max: number, show: (value: number | null) => Value) {
  const width = (max - min) / BINS
  if (!Number.isFinite(width) || width === 0) return [{ from: show(min), to: show(max), count: await countOf(duck, source) }]
  const rows = await duck.rows(`select least(${BINS - 1}, floor((v - (${min})::double) / ${width}::double))::int as bin,
    count(*)::double as count from ${source} where v is not null group by bin`)
  const counts = new Map(rows.map(({ bin, count }) => [Number(bin), Number(count)]))
  return Array.from({ length: BINS }, (_, bin) => ({
    from: show(min + bin * width),
    to: show(bin === BINS - 1 ? max : min + (bin + 1) * width),
    count: counts.get(bin) ?? 0,
  }))
}

async function countOf(duck: Queries, source: string): Promise<number> {
  return Number((await duck.row(`select count(v)::double as present from ${source}`))['present'])
}

async function summariseTexts(duck: Queries, column: Column, rows: number): Promise<ColumnSummary> {
  const name = identifier(column.name)
  const counted = rows <= MAX_EXACT_ROWS ? `count(distinct ${name})` : `approx_count_distinct(${name})`
  const figures = await duck.row(`select count(${name})::double as present, ${counted}::double as "distinct",
    ${shortText(`min(${name})`)} as min, ${shortText(`max(${name})`)} as max from data`)
  const top = await duck.rows(`select ${shortText(name)} as value, count(*)::double as count from data
    where ${name} is not null group by ${name} order by count desc, ${name} limit ${TOP}`)
  const present = Number(figures['present'])
  return {
    ...column,
    nulls: rows - present,
    distinct: Math.min(Number(figures['distinct']), present),
    min: textOf(figures['min']),
    max: textOf(figures['max']),
    top: top.map(({ value, count }) => ({ value: String(value), count: Number(count) })),
  }
}

/** What JSON has no number for, it has as text. */
export const numberOf = (value: unknown) => (typeof value === 'number' && Number.isFinite(value) ? value : null)

export const textOf = (value: unknown) => (typeof value === 'string' ? value : null)

function isoOf({ type }: Column): (seconds: number | null) => string | null {
  return (seconds) => {
    const date = new Date((seconds ?? Number.NaN) * 1_000)
    if (Number.isNaN(date.getTime())) return null
    const iso = date.toISOString()
    return type === 'date' && iso.endsWith('T00:00:00.000Z') ? iso.slice(0, 10) : iso
  }
}
