import { printsBack, type TypedColumn } from './column-types.ts'
import { type ColumnSummary, MAX_TEXT_CHARACTERS, type Value } from './contract.ts'
import type { Queries, Row } from './duck.ts'

const BINS = 20
const TOP = 10
const SHARES = [0.05, 0.25, 0.5, 0.75, 0.95]
/** Up to here quantiles and distinct values are exact: that takes memory for each row. */
const MAX_EXACT_ROWS = 1_000_000
/**
 * Whole numbers of 38 digits are summed up in two parts: DuckDB has no type that holds the sum of
 * many.
 */
const PART = 10n ** 19n

/** A column of the table `data`. */
export interface Column extends TypedColumn {
  /** Its name there. */
  sql: string
}

type Show = (value: number | null) => Value

/**
 * A text no longer than anyone reads, as SQL for `textOf`: an ellipsis stands for the rest. It
 * begins with a space, because DuckDB's bindings would drop a byte order mark from the beginning.
 */
export const shortText = (text: string) =>
  `' ' || case when length(${text}) > ${MAX_TEXT_CHARACTERS} then left(${text}, ${MAX_TEXT_CHARACTERS}) || '…' else ${text} end`

export const isNumeric = ({ type }: TypedColumn) => type === 'integer' || type === 'number'

const isMoment = ({ type }: TypedColumn) => type === 'date' || type === 'timestamp'

export const summariseColumn = (
  duck: Queries,
  column: Column,
  rows: number,
): Promise<ColumnSummary> =>
  isNumeric(column) || isMoment(column)
    ? summariseNumbers(duck, column, rows)
    : summariseTexts(duck, column, rows)

/** The exact sum of a numeric column, as SQL: `readSum` puts its parts together. */
export function sumOf({ sql, sqlType }: TypedColumn & { sql: string }): string {
  if (sqlType !== 'HUGEINT') return `sum(${sql})::varchar as sum, null as parts`
  return `sum(${sql} % ${PART}::hugeint)::varchar as sum, sum(${sql} // ${PART}::hugeint)::varchar as parts`
}

/**
 * The sum of `count` values, and their mean; nulls where there are none, or where no number can
 * hold it.
 */
export function readSum({ sum, parts }: Row, count: number): { sum: Value; mean: number | null } {
  if (typeof sum !== 'string') return { sum: null, mean: null }
  const text = typeof parts === 'string' ? String(BigInt(parts) * PART + BigInt(sum)) : sum
  return { sum: showNumber(text), mean: finite(Number(text) / count) }
}

async function summariseNumbers(
  duck: Queries,
  column: Column,
  rows: number,
): Promise<ColumnSummary> {
  const { sql, name, type, format, nulls } = column
  const present = rows - nulls
  const source = `(select ${isMoment(column) ? `epoch(${sql})` : `${sql}::double`} as v, ${sql} from data)`
  const exact = rows <= MAX_EXACT_ROWS
  const figures =
    await duck.row(`select min(${sql})::varchar as min, max(${sql})::varchar as max, min(v) as low, max(v) as high,
    ${exact ? `count(distinct ${sql})` : `approx_count_distinct(${sql})`}::double as "distinct",
    ${isMoment(column) ? 'avg(v) as mean' : `${sumOf(column)}, ${DEVIATION}`},
    ${quantilesOf(column, exact)}::varchar[] as quantiles from ${source}`)
  const show: Show = isMoment(column) ? isoOf(column) : (value) => value
  const showText = isMoment(column) ? (text: string) => showMoment(text, column) : showNumber
  const [min, max] = [figures['min'], figures['max']].map((text) =>
    typeof text === 'string' ? showText(text) : null,
  )
  const quantiles = Array.isArray(figures['quantiles']) ? figures['quantiles'].map(String) : []
  const showQuantile = isMoment(column) ? (text: string) => show(Number(text)) : showNumber
  return {
    name,
    type,
    ...(format !== undefined && { format }),
    nulls,
    distinct: Math.min(Number(figures['distinct']), present),
    min: min ?? null,
    max: max ?? null,
    mean: isMoment(column) ? show(numberOf(figures['mean'])) : readSum(figures, present).mean,
    ...(isNumeric(column) && { standardDeviation: numberOf(figures['deviation']) }),
    quantiles: Object.fromEntries(
      SHARES.map((share, index) => [share, showQuantile(quantiles[index] ?? '')]),
    ),
    histogram: withEnds(
      await histogramOf(duck, source, figures, present, show),
      min ?? null,
      max ?? null,
    ),
  }
}

/** Scaled down where the squares of the largest numbers would be too large. */
const DEVIATION =
  'case when max(abs(v)) < 1e150 then stddev_samp(case when abs(v) < 1e150 then v end) end as deviation'

/** Numbers with more digits than a double has are not interpolated. */
function quantilesOf({ sql, isLong }: Column, exact: boolean): string {
  if (!exact) return `approx_quantile(v, [${SHARES}])`
  return isLong ? `quantile_disc(${sql}, [${SHARES}])` : `quantile_cont(v, [${SHARES}])`
}

async function histogramOf(
  duck: Queries,
  source: string,
  { low, high }: Row,
  present: number,
  show: Show,
) {
  const [min, max] = [numberOf(low), numberOf(high)]
  if (min === null || max === null) return []
  const width = (max - min) / BINS
  if (!Number.isFinite(width) || width === 0)
    return [{ from: show(min), to: show(max), count: present }]
  const rows =
    await duck.rows(`select least(${BINS - 1}, floor((v - '${min}'::double) / '${width}'::double))::int as bin,
    count(*)::double as count from ${source} where v is not null group by bin`)
  const counts = new Map(rows.map(({ bin, count }) => [Number(bin), Number(count)]))
  return Array.from({ length: BINS }, (_, bin) => ({
    from: show(min + bin * width),
    to: show(min + (bin + 1) * width),
    count: counts.get(bin) ?? 0,
  }))
}

/** The outermost edges are values of the file, and shown as such. */
function withEnds(bins: NonNullable<ColumnSummary['histogram']>, min: Value, max: Value) {
  const [first, last] = [bins.at(0), bins.at(-1)]
  if (first) first.from = min
  if (last) last.to = max
  return bins
}

async function summariseTexts(
  duck: Queries,
  { name, type, format, sql, nulls }: Column,
  rows: number,
): Promise<ColumnSummary> {
  const text = `${sql}::varchar`
  const counted =
    rows <= MAX_EXACT_ROWS ? `count(distinct ${sql})` : `approx_count_distinct(${sql})`
  const figures =
    await duck.row(`select ${counted}::double as "distinct", ${shortText(`min(${text})`)} as min,
    ${shortText(`max(${text})`)} as max from data`)
  const top =
    await duck.rows(`select ${shortText(text)} as value, count(*)::double as count from data
    where ${sql} is not null group by ${sql} order by count desc, ${sql} limit ${TOP}`)
  return {
    name,
    type,
    ...(format !== undefined && { format }),
    nulls,
    distinct: Math.min(Number(figures['distinct']), rows - nulls),
    min: textOf(figures['min']),
    max: textOf(figures['max']),
    top: top.map(({ value, count }) => ({ value: textOf(value) ?? '', count: Number(count) })),
  }
}

/** What JSON has no number for, it has as null. */
const finite = (value: number) => (Number.isFinite(value) ? value : null)

const numberOf = (value: unknown) => (typeof value === 'number' ? finite(value) : null)

export const textOf = (value: unknown) => (typeof value === 'string' ? value.slice(1) : null)

/** A number as JSON; as text where a double would not keep all of its digits. */
function showNumber(text: string): Value {
  const value = Number(text)
  if (!Number.isFinite(value)) return null
  const shortest = text.includes('.') ? text.replace(/\.?0+$/, '') : text
  const isKept = String(value) === shortest || (/[.e]/.test(text) && printsBack(text))
  // Without the sign of a zero.
  return isKept ? value + 0 : shortest
}

/** DuckDB's text of a date or timestamp in ISO 8601, as exact as it is in the file. */
function showMoment(text: string, { layout }: Column): string {
  const [date = '', time] = text.split(' ')
  if (time === undefined || !layout) return date
  const [seconds = '', fraction = ''] = time.split('.')
  const { fractionDigits, zone } = layout
  return `${date}T${seconds}${fractionDigits > 0 ? `.${fraction.padEnd(fractionDigits, '0')}` : ''}${zone}`
}

/**
 * A point in time in ISO 8601, as exact as the column has them, or with milliseconds where it lies
 * between their seconds.
 */
function isoOf({ type, layout }: Column): Show {
  return (seconds) => {
    const micros = Math.round((seconds ?? Number.NaN) * 1e6)
    const date = new Date(Math.floor(micros / 1e6) * 1_000)
    if (Number.isNaN(date.getTime())) return null
    const [day = '', time = ''] = date.toISOString().slice(0, -5).split('T')
    const fraction = String(micros - date.getTime() * 1_000).padStart(6, '0')
    const kept = layout?.fractionDigits ?? 0
    const digits = Number(fraction.slice(kept, 3)) > 0 ? 3 : kept
    if (type === 'date' && time === '00:00:00' && digits === 0) return day
    return `${day}T${time}${digits > 0 ? `.${fraction.slice(0, digits)}` : ''}${layout?.zone ?? ''}`
  }
}
