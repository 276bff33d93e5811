import type { TypedColumn } from './column-types.ts'
import type { Column } from './columns.ts'
import { type Duck, DuckError, literal } from './duck.ts'
import type { CleanFile, ScannedCsv } from './scan.ts'

/**
 * DuckDB reads 32 MB at once unless told otherwise, and a kernel that is not preemptible does
 * nothing else on that core meanwhile: the light endpoint's p99 was some four times the idle one,
 * and is less than twice that with these.
 */
const BUFFER_BYTES = 2 * 1024 * 1024
/**
 * DuckDB does not find the rows of a file again in parallel where this is much more than the
 * longest one has.
 */
const SPARE_LINE_BYTES = 1_000

/** The column to group by, as it is written in the file. */
export const KEY = 'key'

/** The columns as they are named in the table: no name of the file is in any statement. */
export const columnsOf = (columns: readonly TypedColumn[]): Column[] =>
  columns.map((column, index) => ({ ...column, sql: `c${index}` }))

/** What a table has of a file. */
interface TableColumns {
  /** All columns of the file. */
  columns: readonly Column[]
  /** Those that are read. */
  slice: readonly Column[]
  /** The one that is read as it is written, besides. */
  key: Column | undefined
}

/**
 * Reads a slice of a CSV that was found clean into the table `data`, each column as its type, and
 * the key besides. Reading costs the most by far, so it is done once for each column: the table is
 * on disk, and a fifth of the file's size.
 *
 * @throws DuckError when DuckDB read other rows than there are.
 */
export async function createTable(
  duck: Duck,
  { clean, rows, delimiter }: ScannedCsv,
  { columns, slice, key }: TableColumns,
  onProgress: (fraction: number) => void,
): Promise<void> {
  const readsText = (column: Column) => column === key || column.cast !== undefined
  const types = columns.map(
    (column) => `${column.sql}: '${readsText(column) ? 'VARCHAR' : column.sqlType}'`,
  )
  const selected = slice.map((column) => {
    const { sql, sqlType, cast = String } = column
    return readsText(column) ? `cast(${cast(sql)} as ${sqlType}) as ${sql}` : sql
  })
  if (key) selected.push(`${key.sql} as ${KEY}`)
  await duck.rows(
    `create table data as select ${selected} from ${readCsv(clean, delimiter, types)}`,
    onProgress,
  )
  const present = slice.map(({ sql }) => `count(${sql})::double as ${sql}`)
  const counts = await duck.row(`select count(*)::double as rows, ${present} from data`)
  if (counts['rows'] !== rows || slice.some(({ sql, nulls }) => counts[sql] !== rows - nulls))
    throw new DuckError(`DuckDB read ${JSON.stringify(counts)}, but the file has ${rows} rows`)
}

/** Makes room for the next slice. */
export async function dropTable(duck: Duck): Promise<void> {
  await duck.rows('drop table data')
}

function readCsv(
  { file, lineEnd, isMultiline, maxRowBytes }: CleanFile,
  delimiter: string,
  types: string[],
): string {
  const options = {
    auto_detect: false,
    header: false,
    columns: `{${types}}`,
    delim: literal(delimiter),
    quote: `'"'`,
    escape: `'"'`,
    comment: `''`,
    nullstr: `''`,
    new_line: lineEnd === '\n' ? `'\\n'` : `'\\r\\n'`,
    skip: 1,
    compression: `'none'`,
    // A row with line ends in it cannot be told from several by those who begin in the middle of a
    // file.
    parallel: !isMultiline,
    max_line_size: maxRowBytes + SPARE_LINE_BYTES,
    buffer_size: BUFFER_BYTES,
  }
  const list = Object.entries(options).map(([name, value]) => `${name} = ${value}`)
  return `read_csv(${literal(file)}, ${list.join(', ')})`
}
