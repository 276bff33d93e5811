import { CompiledQuery, type DatabaseConnection, type QueryResult, type TransactionSettings } from 'kysely'
import type { PoolConnection, ResultSetHeader } from 'mysql2'
import { isDisconnect, isRetryable, isUnavailable, outcomeUnknown, translate } from './errors.ts'
import type { Gate } from './gate.ts'

const BEGIN = CompiledQuery.raw('begin')

/** What a commit or a rollback may take beyond the end of the signal, in milliseconds. */
const ANSWER_GRACE_MS = 1_000

const READING = /^\s*(select|show|set|begin)\b/i

/** Ends a session on the server; resolves when it is gone or cannot be reached, never rejects. */
export type KillSession = (threadId: number) => Promise<void>

interface LoanOptions {
  gate: Gate
  signal: AbortSignal | undefined
  killSession: KillSession
}

/**
 * A borrowed mysql2 connection, as Kysely wants it, bound to the signal of whoever borrowed it.
 *
 * When the signal aborts, the caller is told at once and the session is killed on the server together with its
 * statement, locks and open transaction. Killing only the statement would keep the connection, but a `KILL QUERY` that
 * arrives late hits whatever the next borrower runs.
 */
export class MysqlConnection implements DatabaseConnection {
  /** Where its permit belongs. */
  readonly gate: Gate
  readonly #raw: PoolConnection
  readonly #signal: AbortSignal | undefined
  readonly #killSession: KillSession
  #killed: Promise<void> | undefined
  #inTransaction = false

  constructor(raw: PoolConnection, { gate, signal, killSession }: LoanOptions) {
    this.gate = gate
    this.#raw = raw
    this.#signal = signal
    this.#killSession = killSession
  }

  /** Runs one statement: prepared on the server if it has parameters, which is faster and leaves nothing to escape. */
  executeQuery<R>({ sql, parameters }: CompiledQuery): Promise<QueryResult<R>> {
    const signal = this.#signal
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason)
      const onAbort = () => {
        this.#kill()
        reject(signal?.reason)
      }
      signal?.addEventListener('abort', onAbort)
      const onResult = (error: Error | null, result: unknown) => {
        signal?.removeEventListener('abort', onAbort)
        if (!error) return resolve(toQueryResult<R>(result))
        if (isUnavailable(error)) this.#raw.destroy()
        reject(this.#mayHaveWritten(sql, error) ? outcomeUnknown(error) : translate(error))
      }
      try {
        if (parameters.length === 0) this.#raw.query(sql, onResult)
        else this.#raw.execute(sql, parameters as unknown[] as string[], onResult)
      } catch (error) {
        // A value that cannot be bound, such as undefined.
        onResult(error as Error, undefined)
      }
    })
  }

  async begin({ isolationLevel, accessMode }: TransactionSettings): Promise<void> {
    const mode = [isolationLevel && `isolation level ${isolationLevel}`, accessMode].filter(Boolean).join(', ')
    if (mode) await this.executeQuery(CompiledQuery.raw(`set transaction ${mode}`))
    await this.executeQuery(BEGIN)
    this.#inTransaction = true
  }

  /**
   * Commits, also when the signal has aborted: a commit that is cut off may have happened or not. Only a server that does
   * not answer for a second after that is waited for no longer.
   *
   * @throws AppError `unavailable` when the answer to the commit was lost.
   */
  async commit(): Promise<void> {
    await this.#end('commit').catch((error) => {
      throw isRetryable(error) ? error : outcomeUnknown(error)
    })
  }

  /** Rolls back; a connection that cannot is not used again, so that no open transaction reaches the next borrower. */
  async rollback(): Promise<void> {
    if (!this.#killed) await this.#end('rollback').catch(() => this.#raw.destroy())
  }

  // biome-ignore lint/correctness/useYield: it refuses instead
  async *streamQuery<R>(): AsyncIterableIterator<QueryResult<R>> {
    throw new Error('A stream holds its connection for as long as the reader likes: read pages by key instead')
  }

  /** Gives the connection back to the pool; where its session was killed, resolves when the server has done so. */
  release(): Promise<void> | undefined {
    this.#raw.release()
    return this.#killed
  }

  /** A statement outside of a transaction commits itself: where its answer is lost, the change may be there. */
  #mayHaveWritten(sql: string, error: Error): boolean {
    return !this.#inTransaction && isDisconnect(error) && !READING.test(sql)
  }

  #kill() {
    this.#killed = this.#killSession(this.#raw.threadId)
    this.#raw.destroy()
  }

  #end(sql: 'commit' | 'rollback'): Promise<void> {
    const signal = this.#signal
    return new Promise((resolve, reject) => {
      let timer: NodeJS.Timeout | undefined
      const onTimeout = () => {
        this.#raw.destroy()
        reject(Object.assign(new Error(`No answer to the ${sql}`), { code: 'ETIMEDOUT' }))
      }
      const onAbort = () => {
        timer = setTimeout(onTimeout, ANSWER_GRACE_MS)
      }
      if (signal?.aborted) onAbort()
      else signal?.addEventListener('abort', onAbort)
      this.#raw.query(sql, (error) => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', onAbort)
        if (error) reject(error)
        else resolve()
      })
    })
  }
}

function toQueryResult<R>(result: unknown): QueryResult<R> {
  if (Array.isArray(result)) return { rows: result as R[] }
  const { insertId, affectedRows } = result as ResultSetHeader
  return { insertId: BigInt(insertId), numAffectedRows: BigInt(affectedRows), rows: [] }
}
