import {
  CompiledQuery,
  type DatabaseConnection,
  type QueryResult,
  type TransactionSettings,
} from 'kysely'
import type { PoolConnection, ResultSetHeader } from 'mysql2'
import { AppError } from '../errors.ts'
import { isDisconnect, isRetryable, isUnavailable, outcomeUnknown, translate } from './errors.ts'
import type { Semaphore } from './semaphore.ts'
import { discard } from './session.ts'

const BEGIN = CompiledQuery.raw('begin')

/**
 * What a commit, a rollback or a statement that commits itself may take beyond the end of the
 * signal, in milliseconds.
 */
const ANSWER_GRACE_MS = 1_000

const NOT_WELL_FORMED = 'A text has half of a surrogate pair in it, which no encoding can hold'

/** mysql2 would write U+FFFD in its place, so that different texts become equal. */
const isStorable = (value: unknown) => typeof value !== 'string' || value.isWellFormed()

const READING = /^\s*(select|show|set|begin)\b/i

/**
 * How long a permit waits for the end of a statement that was stopped but may go on, in
 * milliseconds.
 */
const STOP_TIMEOUT_MS = 10_000

/** Ends a session on its server; false when that cannot be reached. Never rejects. */
export type KillSession = (connection: PoolConnection, hasEnded: () => boolean) => Promise<boolean>

interface LoanOptions {
  semaphore: Semaphore
  signal: AbortSignal | undefined
  killSession: KillSession
}

/**
 * A borrowed mysql2 connection, as Kysely wants it, bound to the signal of whoever borrowed it.
 *
 * When the signal aborts, the caller is told at once and the session is killed on the server
 * together with its statement, locks and open transaction. Killing only the statement would keep
 * the connection, but a `KILL QUERY` that arrives late hits whatever the next borrower runs.
 */
export class MysqlConnection implements DatabaseConnection {
  /** Where its permit belongs. */
  readonly semaphore: Semaphore
  readonly #raw: PoolConnection
  readonly #signal: AbortSignal | undefined
  readonly #killSession: KillSession
  /**
   * Once the signal has aborted during a statement; resolves when the server has ended the session.
   */
  #stopped: PromiseWithResolvers<void> | undefined
  #inTransaction = false

  constructor(raw: PoolConnection, { semaphore, signal, killSession }: LoanOptions) {
    this.semaphore = semaphore
    this.#raw = raw
    this.#signal = signal
    this.#killSession = killSession
  }

  /**
   * Runs one statement: prepared on the server if it has parameters, which is faster and leaves
   * nothing to escape.
   */
  executeQuery<R>({ sql, parameters }: CompiledQuery): Promise<QueryResult<R>> {
    const signal = this.#signal
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason)
      if (!parameters.every(isStorable)) return reject(new AppError('invalid', NOT_WELL_FORMED))
      const onAbort = () => {
        this.#stop()
        // A change that commits itself may have happened already: its answer says so, if it comes
        // soon.
        if (this.#commitsItself(sql)) setTimeout(reject, ANSWER_GRACE_MS, signal?.reason).unref()
        else reject(signal?.reason)
      }
      signal?.addEventListener('abort', onAbort)
      const onResult = (error: Error | null, result: unknown) => {
        signal?.removeEventListener('abort', onAbort)
        this.#stopped?.resolve()
        if (this.#stopped && error) return reject(signal?.reason)
        if (!error) return resolve(toQueryResult<R>(result))
        if (isUnavailable(error)) this.#raw.destroy()
        reject(
          isDisconnect(error) && this.#commitsItself(sql)
            ? outcomeUnknown(error)
            : translate(error),
        )
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
    const mode = [isolationLevel && `isolation level ${isolationLevel}`, accessMode]
      .filter(Boolean)
      .join(', ')
    if (mode) await this.executeQuery(CompiledQuery.raw(`set transaction ${mode}`))
    await this.executeQuery(BEGIN)
    this.#inTransaction = true
  }

  /**
   * Commits, also when the signal has aborted: a commit that is cut off may have happened or not.
   * Only a server that does not answer for a second after that is waited for no longer.
   *
   * @throws AppError `unavailable` when the answer to the commit was lost.
   */
  async commit(): Promise<void> {
    if (this.#stopped) throw this.#signal?.reason
    await this.#end('commit').catch((error) => {
      throw isRetryable(error) ? error : outcomeUnknown(error)
    })
  }

  /**
   * Rolls back; a connection that cannot is not used again, so that no open transaction reaches the
   * next borrower.
   */
  async rollback(): Promise<void> {
    if (!this.#stopped) await this.#end('rollback').catch(() => this.#raw.destroy())
  }

  // biome-ignore lint/correctness/useYield: it refuses instead
  async *streamQuery<R>(): AsyncIterableIterator<QueryResult<R>> {
    throw new Error(
      'A stream holds its connection for as long as the reader likes: read pages by key instead',
    )
  }

  /**
   * Gives the connection back to the pool; where a statement was stopped, resolves when its session
   * has ended.
   */
  release(): Promise<void> | undefined {
    if (!this.#stopped) this.#raw.release()
    return this.#stopped?.promise
  }

  /**
   * Whether a statement is a transaction of its own: where its answer is lost, its change may be
   * there.
   */
  #commitsItself(sql: string): boolean {
    return !this.#inTransaction && !READING.test(sql)
  }

  /**
   * Kills the session. The connection stays open until the answer to its statement, or its end,
   * says that the server has stopped. A permit that came back before would let more statements run
   * than there are permits.
   */
  #stop() {
    const stopped = Promise.withResolvers<void>()
    this.#stopped = stopped
    let hasEnded = false
    const timer = setTimeout(stopped.resolve, STOP_TIMEOUT_MS).unref()
    void stopped.promise.then(() => {
      hasEnded = true
      clearTimeout(timer)
      discard(this.#raw)
    })
    void this.#killSession(this.#raw, () => hasEnded).then(
      (isReachable) => isReachable || stopped.resolve(),
    )
  }

  #end(sql: 'commit' | 'rollback'): Promise<void> {
    const signal = this.#signal
    return new Promise((resolve, reject) => {
      let timer: NodeJS.Timeout | undefined
      const onTimeout = () => {
        discard(this.#raw)
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
