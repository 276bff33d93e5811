import { join } from 'node:path'
import { type DuckDBConnection, DuckDBInstance, type Json } from '@duckdb/node-api'

const PROGRESS_EVERY_MS = 200

export interface DuckOptions {
  /** An empty folder of its own: the database and what does not fit into memory are in it. */
  folder: string
  memoryMb: number
  threads: number
  /** DuckDB holds so many rows of a table in memory until they are on disk; a multiple of 2 048. */
  rowGroupRows: number
  /**
   * What each column of a row group takes at least, in memory and on disk; a power of two, from 16
   * 384 on.
   */
  blockBytes: number
  /**
   * So much freed memory goes back to the system at once: with less, the process takes less, and
   * more time.
   */
  freedMb: number
}

/** One row, as JSON has it: numbers that a double cannot hold are strings. */
export type Row = Record<string, Json>

/** What runs queries: a Duck, or the bare DuckDB that it is measured against. */
export type Queries = Pick<Duck, 'rows' | 'row'>

/** A failure that DuckDB itself reports. */
export class DuckError extends Error {
  override readonly name = 'DuckError'
}

/** A DuckDB database in a folder. Its threads have the priority of the process. */
export class Duck implements Disposable {
  readonly #instance: DuckDBInstance
  readonly #connection: DuckDBConnection

  static async open({
    folder,
    memoryMb,
    threads,
    rowGroupRows,
    blockBytes,
    freedMb,
  }: DuckOptions): Promise<Duck> {
    const instance = await DuckDBInstance.create(':memory:', {
      threads: String(threads),
      memory_limit: `${memoryMb}MB`,
      temp_directory: join(folder, 'spill'),
      allocator_flush_threshold: `${freedMb}MB`,
      allocator_bulk_deallocation_flush_threshold: `${freedMb}MB`,
      // Order costs memory, and nothing here depends on it.
      preserve_insertion_order: 'false',
      // Nothing is fetched.
      autoinstall_known_extensions: 'false',
      autoload_known_extensions: 'false',
    })
    const connection = await instance.connect()
    // Or else it does not know how far a statement is.
    await connection.run('set enable_progress_bar = true; set enable_progress_bar_print = false')
    const file = literal(join(folder, 'report.duckdb'))
    await connection.run(
      `attach ${file} as report (row_group_size ${rowGroupRows}, block_size ${blockBytes}); use report`,
    )
    return new Duck(instance, connection)
  }

  private constructor(instance: DuckDBInstance, connection: DuckDBConnection) {
    this.#instance = instance
    this.#connection = connection
  }

  /**
   * Runs a statement and gives its rows.
   *
   * @param onProgress told now and then how much of it is done, from 0 to 1.
   * @throws DuckError
   */
  async rows(sql: string, onProgress?: (fraction: number) => void): Promise<Row[]> {
    const timer = onProgress && setInterval(() => this.#report(onProgress), PROGRESS_EVERY_MS)
    try {
      const reader = await this.#connection.runAndReadAll(sql)
      return reader.getRowObjectsJson()
    } catch (error) {
      throw new DuckError(error instanceof Error ? error.message : String(error))
    } finally {
      clearInterval(timer)
    }
  }

  /** The only row of a statement that has one. */
  async row(sql: string): Promise<Row> {
    return (await this.rows(sql))[0] ?? {}
  }

  [Symbol.dispose]() {
    this.#connection.closeSync()
    this.#instance.closeSync()
  }

  #report(onProgress: (fraction: number) => void) {
    const { percentage } = this.#connection.progress
    if (percentage >= 0) onProgress(percentage / 100)
  }
}

/** A text as SQL has it. */
export const literal = (text: string) => `'${text.replaceAll("'", "''")}'`
