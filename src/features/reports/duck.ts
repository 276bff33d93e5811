import { join } from 'node:path'
import type { DuckDBConnection, DuckDBInstance, Json } from '@duckdb/node-api'
import type { Column } from './column-types.ts'
import type { ScannedCsv } from './scan.ts'

const PROGRESS_EVERY_MS = 200
/** DuckDB's default of 32 MB blocks light requests (docs/decisions/009). */
const READ_BYTES = 2 * 1024 * 1024
/** DuckDB does not read in parallel with a much larger `max_line_size`. */
const SPARE_LINE_BYTES = 1_000
/** The column to group by. */
export const KEY = 'key'

interface DuckOptions {
  limitMb: number
  threads: number
  /** Rows kept in memory; a multiple of 2 048. */
  rowGroupRows: number
  /** The minimum size of a column in a row group: a power of two from 16 384. */
  blockBytes: number
  freedMb: number
}

/** Numbers that a double cannot hold are strings. */
export type Row = Record<string, Json>

/** A `Duck`, or the plain DuckDB of the bench. */
export type Queries = Pick<Duck, 'rows' | 'row'>

export class DuckError extends Error {
  override readonly name = 'DuckError'
}

export class Duck implements Disposable {
  readonly #instance: DuckDBInstance
  readonly #connection: DuckDBConnection

  /** @param folder for the database and what does not fit into memory. */
  static async open(folder: string, options: DuckOptions): Promise<Duck> {
    const { limitMb, threads, rowGroupRows, blockBytes, freedMb } = options
    // Most threads never need it.
    const { DuckDBInstance } = await import('@duckdb/node-api')
    const instance = await DuckDBInstance.create(':memory:', {
      threads: String(threads),
      memory_limit: `${limitMb}MB`,
      temp_directory: join(folder, 'spill'),
      allocator_flush_threshold: `${freedMb}MB`,
      allocator_bulk_deallocation_flush_threshold: `${freedMb}MB`,
      // Preserving the order would cost memory.
      preserve_insertion_order: 'false',
      autoinstall_known_extensions: 'false',
      autoload_known_extensions: 'false',
    })
    const connection = await instance.connect()
    // Enables `connection.progress`.
    await connection.run('set enable_progress_bar = true; set enable_progress_bar_print = false')
    const file = toLiteral(join(folder, 'report.duckdb'))
    const sizes = `row_group_size ${rowGroupRows}, block_size ${blockBytes}`
    await connection.run(`attach ${file} as report (${sizes}); use report`)
    return new Duck(instance, connection)
  }

  private constructor(instance: DuckDBInstance, connection: DuckDBConnection) {
    this.#instance = instance
    this.#connection = connection
  }

  /** `onProgress` gets the fraction done. @throws DuckError */
  async rows(sql: string, onProgress?: (fraction: number) => void): Promise<Row[]> {
    const report = () => {
      const { percentage } = this.#connection.progress
      if (percentage >= 0) onProgress?.(percentage / 100)
    }
    const timer = onProgress && setInterval(report, PROGRESS_EVERY_MS)
    try {
      return (await this.#connection.runAndReadAll(sql)).getRowObjectsJson()
    } catch (error) {
      throw new DuckError(error instanceof Error ? error.message : String(error))
    } finally {
      clearInterval(timer)
    }
  }

  async row(sql: string): Promise<Row> {
    return (await this.rows(sql))[0] ?? {}
  }

  [Symbol.dispose]() {
    this.#connection.closeSync()
    this.#instance.closeSync()
  }
}

/**
 * Reads the columns `slice` into the table `data`, on disk.
 *
 * @param key the column that is also kept as written.
 * @throws DuckError if DuckDB counts other rows or values than the scan.
 */
export async function createTable(
  duck: Duck,
  csv: ScannedCsv,
  { slice, key }: { slice: Column[]; key: Column | undefined },
  onProgress: (fraction: number) => void,
): Promise<void> {
  const isText = (column: Column) => column === key || column.pattern || column.zone
  const types = csv.columns.map(
    (column) => `${column.sql}: '${isText(column) ? 'VARCHAR' : column.sqlType}'`,
  )
  const selected = slice.map((column) => {
    const { sql, sqlType, zone, pattern } = column
    if (!isText(column)) return sql
    const local = zone ? `left(${sql}, length(${sql}) - ${zone.length})` : sql
    const value = pattern ? `strptime(${local}, '${pattern}')` : local
    return `cast(${value} as ${sqlType}) as ${sql}`
  })
  if (key) selected.push(`${key.sql} as ${KEY}`)
  const file = `read_csv(${toLiteral(csv.file)}, auto_detect = false, header = false,
    columns = {${types}},
    delim = ${toLiteral(csv.delimiter)}, quote = '"', escape = '"', comment = '', nullstr = '',
    new_line = '\\n', skip = 1, compression = 'none', buffer_size = ${READ_BYTES},
    parallel = ${!csv.isMultiline}, max_line_size = ${csv.maxRowBytes + SPARE_LINE_BYTES})`
  await duck.rows(`create table data as select ${selected} from ${file}`, onProgress)
  const present = slice.map(({ sql }) => `count(${sql})::double as ${sql}`)
  const counts = await duck.row(`select count(*)::double as rows, ${present} from data`)
  const { rows } = csv
  if (counts['rows'] !== rows || slice.some(({ sql, nulls }) => counts[sql] !== rows - nulls))
    throw new DuckError(`DuckDB read ${JSON.stringify(counts)}, but the file has ${rows} rows`)
}

/** @public The bench quotes names with it, too. */
export const toLiteral = (text: string) => `'${text.replaceAll("'", "''")}'`
