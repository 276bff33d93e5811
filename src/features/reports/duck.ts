import { readdirSync, readFileSync } from 'node:fs'
import { constants, setPriority } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { DuckDBMaterializedResult, type Json } from '@duckdb/node-api'
import duckdb, { type Connection, type Database, type PendingResult } from '@duckdb/node-bindings'
import type { TaskContext } from '../../compute/implement.ts'

const FIRST_LOOK_MS = 1
const LOOK_EVERY_MS = 10

export interface DuckOptions {
  /** An empty folder of its own: the database and what does not fit into memory are in it. */
  folder: string
  /** The one file that it may read besides. */
  file: string
  memoryMb: number
  threads: number
}

/** One row, as JSON has it: numbers that a double cannot hold are strings. */
export type Row = Record<string, Json>

/** What runs queries: a Duck, or the bare DuckDB that it is measured against. */
export type Queries = Pick<Duck, 'rows' | 'row'>

/** A failure that DuckDB itself reports. */
export class DuckError extends Error {
  override readonly name = 'DuckError'
}

/**
 * A DuckDB database in a folder, for one task on a worker thread.
 *
 * All work is done by DuckDB's own threads, none by this one: this thread only looks, every 10 ms, whether a statement is
 * done and whether anybody still waits for it. So it can interrupt one at any time, and need never be terminated in native
 * code. That takes the bindings below `@duckdb/node-api`, whose `runTask()` computes on the calling thread for up to 200 ms
 * at a time, and whose `run()` does on a thread of libuv's, at full priority.
 */
export class Duck {
  readonly #database: Database
  readonly #connection: Connection
  readonly #context: TaskContext

  static async open({ folder, file, memoryMb, threads }: DuckOptions, context: TaskContext): Promise<Duck> {
    const config = duckdb.create_config()
    const settings = {
      threads: '1',
      memory_limit: `${memoryMb}MB`,
      temp_directory: join(folder, 'spill'),
      // Order costs memory, and nothing here depends on it.
      preserve_insertion_order: 'false',
      // Nothing is fetched, and nothing is read but the upload.
      autoinstall_known_extensions: 'false',
      autoload_known_extensions: 'false',
    }
    for (const [name, value] of Object.entries(settings)) duckdb.set_config(config, name, value)
    const database = await duckdb.open(join(folder, 'report.duckdb'), config)
    const duck = new Duck(database, await duckdb.connect(database), context)
    await duck.#startThreads(threads)
    await duck.#confineTo(file, folder)
    return duck
  }

  private constructor(database: Database, connection: Connection, context: TaskContext) {
    this.#database = database
    this.#connection = connection
    this.#context = context
  }

  /**
   * Runs a statement and gives its rows.
   *
   * @param onProgress told now and then how much of it is done, from 0 to 1.
   * @throws DuckError; or an error that says the task was cancelled.
   */
  async rows(sql: string, onProgress?: (fraction: number) => void): Promise<Row[]> {
    this.#context.throwIfCancelled()
    const statement = await duckdb.prepare(this.#connection, sql).catch(rethrow)
    try {
      const pending = duckdb.pending_prepared(statement)
      await this.#untilDone(pending, onProgress)
      const result = new DuckDBMaterializedResult(await duckdb.execute_pending(pending))
      return await result.getRowObjectsJson()
    } catch (error) {
      return rethrow(error)
    } finally {
      duckdb.destroy_prepare_sync(statement)
    }
  }

  /** The only row of a statement that has one. */
  async row(sql: string, onProgress?: (fraction: number) => void): Promise<Row> {
    return (await this.rows(sql, onProgress))[0] ?? {}
  }

  close() {
    duckdb.disconnect_sync(this.#connection)
    duckdb.close_sync(this.#database)
  }

  /**
   * They start with the priority of libuv's threads, which is the event loop's, and bear their name. So they are told from
   * others by having come just now: were there a strange one among them, it would be another report's.
   */
  async #startThreads(threads: number) {
    const before = threadIds()
    await duckdb.query(this.#connection, `set threads = ${threads}; set external_threads = 0`)
    for (const id of threadIds().difference(before)) lowerPriorityOf(id)
  }

  /** From here on no statement reads another file, fetches anything or changes a setting. */
  async #confineTo(file: string, folder: string) {
    const settings = [
      'enable_progress_bar = true',
      'enable_progress_bar_print = false',
      `allowed_paths = [${literal(file)}]`,
      `allowed_directories = [${literal(folder)}]`,
      'enable_external_access = false',
      'lock_configuration = true',
    ]
    await duckdb.query(this.#connection, settings.map((setting) => `set ${setting}`).join(';'))
  }

  async #untilDone(pending: PendingResult, onProgress?: (fraction: number) => void) {
    for (let waitMs = FIRST_LOOK_MS; ; waitMs = Math.min(waitMs * 2, LOOK_EVERY_MS)) {
      const state = duckdb.pending_execute_check_state(pending)
      // Or it failed, which the result says.
      if (state === duckdb.PendingState.RESULT_READY || state === duckdb.PendingState.ERROR) return
      if (this.#context.cancelled) duckdb.interrupt(this.#connection)
      await sleep(waitMs)
      const { percentage } = duckdb.query_progress(this.#connection)
      if (percentage >= 0) onProgress?.(percentage / 100)
    }
  }
}

/** A text as SQL has it. */
export const literal = (text: string) => `'${text.replaceAll("'", "''")}'`

const rethrow = (error: unknown): never => {
  throw error instanceof DuckError ? error : new DuckError(error instanceof Error ? error.message : String(error))
}

/** Linux's ids of this process's threads; elsewhere Node has no handle on a single one. */
function threadIds(): Set<string> {
  return new Set(process.platform === 'linux' ? readdirSync('/proc/self/task') : [])
}

function lowerPriorityOf(threadId: string) {
  try {
    // A pool's thread that starts just now has its own way.
    if (readFileSync(`/proc/self/task/${threadId}/comm`, 'utf8').startsWith('libuv'))
      setPriority(Number(threadId), constants.priority.PRIORITY_LOW)
  } catch {
    // It is gone, or a sandbox forbids it: the work is done all the same.
  }
}
