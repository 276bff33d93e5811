import { setTimeout as sleep } from 'node:timers/promises'
import {
  CompiledQuery,
  type DatabaseConnection,
  type QueryResult,
  type TransactionSettings,
} from 'kysely'
import {
  createConnection,
  type PoolConnection,
  type ResultSetHeader,
  type RowDataPacket,
} from 'mysql2'
import { AppError } from '../errors.ts'
import { isDisconnect, isRetryable, isUnavailable, outcomeUnknown, translate } from './errors.ts'

/** For an answer that comes after the abort and says whether a change was made. */
const ANSWER_GRACE_MS = 1_000
/** For the end of a killed session, before its permit comes back. */
const STOP_TIMEOUT_MS = 10_000
const PING_TIMEOUT_MS = 250
const KILL_TIMEOUT_MS = 1_000
const MAX_KILL_ATTEMPTS = 20
const KILL_RETRY_MS = 40

// The server's defaults must not decide what a date means or which values are errors.
const SQL_MODE =
  'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'
const PREPARE_SESSION = `set time_zone = '+00:00', sql_mode = '${SQL_MODE}'`
// Replicas of each other have different ids.
const IDENTIFY_SERVER = `select concat_ws(' ', @@hostname, @@port, @@server_id) as server`

const NOT_STORABLE = 'A text has half of a surrogate pair in it, which no encoding can hold'
const BEGIN = CompiledQuery.raw('begin')
const READING = /^\s*(select|show|set|begin)\b/i

/** The server of each connection. */
const servers = new WeakMap<PoolConnection, string>()

/** Sends the first statements of a new session; those of its borrower wait for them. */
export function prepareSession(connection: PoolConnection): void {
  // mysql2 throws the second error of a broken connection at the process.
  connection.on('error', () => {})
  connection.query(PREPARE_SESSION, (error) => error && connection.destroy())
  connection.query<RowDataPacket[]>(IDENTIFY_SERVER, (error, rows) => {
    if (!error) servers.set(connection, rows[0]?.['server'])
  })
}

/** Whether the server answers on this connection within 250 ms. */
export function answersPing(connection: PoolConnection): Promise<boolean> {
  return new Promise((resolve) => {
    // An answer that came while the event loop was blocked is read before the immediate.
    const timer = setTimeout(() => setImmediate(() => resolve(false)), PING_TIMEOUT_MS)
    connection.ping((error) => {
      clearTimeout(timer)
      resolve(!error)
    })
  })
}

/** Closes a connection whose server does not answer. */
export function discard(connection: PoolConnection): void {
  const { stream } = connection as unknown as { stream: { destroy(): void } }
  connection.destroy()
  stream.destroy()
}

/**
 * A mysql2 connection as Kysely wants it, bound to its borrower's signal: when that aborts, the
 * caller gets its reason at once, and the session is killed on the server with its statement, locks
 * and transaction. A `KILL QUERY` that arrives late would hit the next borrower's statement.
 */
export class MysqlConnection implements DatabaseConnection {
  readonly #raw: PoolConnection
  readonly #url: string
  readonly #signal: AbortSignal | undefined
  /** After the abort; resolves when the server has ended the session. */
  #stopped: PromiseWithResolvers<void> | undefined
  #inTransaction = false

  /** @param url of the database, to kill the session from another connection. */
  constructor(raw: PoolConnection, url: string, signal: AbortSignal | undefined) {
    this.#raw = raw
    this.#url = url
    this.#signal = signal
  }

  /** Runs a statement; one with parameters is prepared on the server. */
  executeQuery<R>({ sql, parameters }: CompiledQuery): Promise<QueryResult<R>> {
    const signal = this.#signal
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason)
      if (!parameters.every(isStorable)) return reject(new AppError('invalid', NOT_STORABLE))
      const onAbort = () => {
        this.#stop()
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
        const isUnknown = isDisconnect(error) && this.#commitsItself(sql)
        reject(isUnknown ? outcomeUnknown(error) : translate(error))
      }
      try {
        if (parameters.length === 0) this.#raw.query(sql, onResult)
        else this.#raw.execute(sql, parameters as unknown[] as string[], onResult)
      } catch (error) {
        // A parameter such as undefined.
        onResult(error as Error, undefined)
      }
    })
  }

  async begin({ isolationLevel, accessMode }: TransactionSettings): Promise<void> {
    const mode = [isolationLevel && `isolation level ${isolationLevel}`, accessMode]
    const settings = mode.filter(Boolean).join(', ')
    if (settings) await this.executeQuery(CompiledQuery.raw(`set transaction ${settings}`))
    await this.executeQuery(BEGIN)
    this.#inTransaction = true
  }

  /**
   * Commits, also after the signal's abort: a commit that is cut off may have happened or not.
   *
   * @throws AppError `unavailable` without `Retry-After` when the answer was lost.
   */
  async commit(): Promise<void> {
    if (this.#stopped) throw this.#signal?.reason
    await this.#end('commit').catch((error) => {
      throw isRetryable(error) ? error : outcomeUnknown(error)
    })
  }

  /** Closes a connection that cannot roll back. */
  async rollback(): Promise<void> {
    if (!this.#stopped) await this.#end('rollback').catch(() => this.#raw.destroy())
  }

  // biome-ignore lint/correctness/useYield: it refuses instead
  async *streamQuery<R>(): AsyncIterableIterator<QueryResult<R>> {
    throw new Error(
      'A stream keeps its connection until its reader is done: read pages by key instead',
    )
  }

  /** Returns the connection to the pool or, after an abort, a promise of the session's end. */
  release(): Promise<void> | undefined {
    if (!this.#stopped) this.#raw.release()
    return this.#stopped?.promise
  }

  /** Whether the statement is a transaction of its own, which may be done without an answer. */
  #commitsItself(sql: string): boolean {
    return !this.#inTransaction && !READING.test(sql)
  }

  /**
   * Kills the session, and keeps the connection until the server answers or closes it, so that no
   * more statements run than there are permits.
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
    void killSession(this.#url, this.#raw, () => hasEnded).then(
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

/** mysql2 would write U+FFFD for half of a surrogate pair, so that different texts become equal. */
const isStorable = (value: unknown) => typeof value !== 'string' || value.isWellFormed()

function toQueryResult<R>(result: unknown): QueryResult<R> {
  if (Array.isArray(result)) return { rows: result as R[] }
  const { insertId, affectedRows } = result as ResultSetHeader
  return { insertId: BigInt(insertId), numAffectedRows: BigInt(affectedRows), rows: [] }
}

/**
 * Ends a session through a new connection. Where the address leads to several servers, it connects
 * until it meets the session's own: on the others its id is another client's.
 *
 * @returns false when no server can be reached. Never rejects.
 */
async function killSession(url: string, connection: PoolConnection, hasEnded: () => boolean) {
  const server = servers.get(connection)
  for (let attempt = 1; server && attempt <= MAX_KILL_ATTEMPTS && !hasEnded(); attempt++) {
    const outcome = await tryKill(url, server, connection.threadId, hasEnded)
    if (outcome !== 'other server') return outcome === 'killed'
    // At random: two callers must not alternate at a round-robin balancer.
    await sleep(Math.random() * KILL_RETRY_MS * attempt)
  }
  return true
}

async function tryKill(uri: string, server: string, threadId: number, hasEnded: () => boolean) {
  const { promise, resolve } = Promise.withResolvers<'killed' | 'other server' | 'unreachable'>()
  const fail = (error: unknown) => resolve(isDisconnect(error) ? 'unreachable' : 'other server')
  const timer = setTimeout(resolve, KILL_TIMEOUT_MS, 'unreachable')
  const control = createConnection({ uri, connectTimeout: KILL_TIMEOUT_MS }).on('error', fail)
  control.query<RowDataPacket[]>(IDENTIFY_SERVER, (error, rows) => {
    if (error) fail(error)
    else if (rows[0]?.['server'] !== server) resolve('other server')
    else if (hasEnded()) resolve('killed')
    else control.query(`kill ${threadId}`, () => resolve('killed'))
  })
  const outcome = await promise
  clearTimeout(timer)
  control.destroy()
  return outcome
}
