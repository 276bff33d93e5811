import { addAbortListener } from 'node:events'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { CompiledQuery, DatabaseConnection, QueryResult } from 'kysely'
import {
  createConnection,
  type PoolConnection,
  type ResultSetHeader,
  type RowDataPacket,
} from 'mysql2'
import { AppError } from '../errors.ts'
import { isDisconnect, isRetryable, isUnavailable, outcomeUnknown, translate } from './errors.ts'

/** After an abort, for the answer that says whether a change was made. */
const ANSWER_GRACE_MS = 1_000
/** For the end of a killed session. */
const STOP_TIMEOUT_MS = 10_000
const PING_TIMEOUT_MS = 250
const KILL_TIMEOUT_MS = 1_000
const MAX_KILL_ATTEMPTS = 20
const KILL_RETRY_MS = 40

// Servers differ in their defaults for dates and invalid values.
const SQL_MODE =
  'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'
const PREPARE_SESSION = `set time_zone = '+00:00', sql_mode = '${SQL_MODE}'`
// Replicas have different ids.
const IDENTIFY_SERVER = `select concat_ws(' ', @@hostname, @@port, @@server_id) as server`

const NOT_STORABLE = 'A text has half of a surrogate pair in it, which no encoding can hold'
const READING = /^\s*(select|show|set|begin)\b/i

const servers = new WeakMap<PoolConnection, string>()

/** Sent before the borrower's statements. */
export function prepareSession(connection: PoolConnection): void {
  // Otherwise a broken connection's second error would end the process.
  connection.on('error', () => {})
  connection.query(PREPARE_SESSION, (error) => error && discard(connection))
  connection.query<RowDataPacket[]>(IDENTIFY_SERVER, (error, rows) => {
    if (error) discard(connection)
    else servers.set(connection, rows[0]?.['server'])
  })
}

export function answersPing(connection: PoolConnection): Promise<boolean> {
  return new Promise((resolve) => {
    // The answer may have come while the event loop was blocked.
    const timer = setTimeout(() => setImmediate(() => resolve(false)), PING_TIMEOUT_MS)
    connection.ping((error) => {
      clearTimeout(timer)
      resolve(!error)
    })
  })
}

export function discard(connection: PoolConnection): void {
  connection.destroy()
  socketOf(connection).destroy(Object.assign(new Error('No answer'), { code: 'ETIMEDOUT' }))
}

/**
 * Called when a statement begins; returns what to call at its end.
 *
 * @param name of a prepared query.
 * @param session one for each transaction.
 */
export type OnStatement = (
  sql: string,
  name: string | undefined,
  session: object,
) => (failed: boolean) => void

type Query = CompiledQuery & { name?: string }

/**
 * Adapts a mysql2 connection to Kysely. An abort of its signal rejects at once and kills the
 * session (docs/decisions/002).
 */
export class MysqlConnection implements DatabaseConnection {
  readonly #raw: PoolConnection
  readonly #url: string
  readonly #signal: AbortSignal | undefined
  readonly #onStatement: OnStatement | undefined
  /** Resolves when the server has ended an aborted session. */
  #stopped: PromiseWithResolvers<void> | undefined
  isInTransaction = false

  constructor(
    raw: PoolConnection,
    url: string,
    signal: AbortSignal | undefined,
    onStatement?: OnStatement,
  ) {
    this.#raw = raw
    this.#url = url
    this.#signal = signal
    this.#onStatement = onStatement
  }

  executeQuery<R>({ sql, parameters, name }: Query): Promise<QueryResult<R>> {
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
      const onEnd = this.#onStatement?.(sql, name, this)
      const onResult = (error: Error | null, result: unknown) => {
        onEnd?.(Boolean(error))
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
        // mysql2 throws for a parameter such as undefined.
        onResult(error as Error, undefined)
      }
    })
  }

  /**
   * An abort does not interrupt a commit, whose outcome would be unknown.
   *
   * @throws AppError `unavailable` without `Retry-After` when the answer was lost.
   */
  async commit(): Promise<void> {
    if (this.#stopped) throw this.#signal?.reason
    await this.#end('commit').catch((error) => {
      throw isRetryable(error) ? error : outcomeUnknown(error)
    })
  }

  async rollback(): Promise<void> {
    if (!this.#stopped) await this.#end('rollback').catch(() => this.#raw.destroy())
    // As the server does.
    else this.#onStatement?.('rollback', undefined, this)(false)
  }

  streamQuery(): never {
    throw new Error(
      'A stream keeps its connection until its reader is done: read pages by key instead',
    )
  }

  release(): Promise<void> | undefined {
    if (!this.#stopped) this.#raw.release()
    return this.#stopped?.promise
  }

  /** Whether the statement may have changed data without an answer. */
  #commitsItself(sql: string): boolean {
    return !this.isInTransaction && !READING.test(sql)
  }

  /** The session's end releases its permit, so that statements never outnumber permits. */
  #stop() {
    this.#stopped = Promise.withResolvers<void>()
    const { promise, resolve } = this.#stopped
    const timer = setTimeout(resolve, STOP_TIMEOUT_MS).unref()
    void promise.then(() => {
      clearTimeout(timer)
      discard(this.#raw)
    })
    void killSession(this.#url, this.#raw).then((canEnd) => canEnd || resolve())
  }

  async #end(sql: 'commit' | 'rollback'): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    let timer: NodeJS.Timeout | undefined
    const onAbort = () => {
      timer = setTimeout(discard, ANSWER_GRACE_MS, this.#raw)
    }
    using _listener = this.#signal && addAbortListener(this.#signal, onAbort)
    const onEnd = this.#onStatement?.(sql, undefined, this)
    this.#raw.query(sql, (error) => {
      onEnd?.(Boolean(error))
      if (error) reject(error)
      else resolve()
    })
    await promise.finally(() => clearTimeout(timer))
  }
}

/** mysql2 would store U+FFFD for any lone surrogate. */
const isStorable = (value: unknown) => typeof value !== 'string' || value.isWellFormed()

function toQueryResult<R>(result: unknown): QueryResult<R> {
  if (Array.isArray(result)) return { rows: result as R[] }
  const { insertId, affectedRows } = result as ResultSetHeader
  return { insertId: BigInt(insertId), numAffectedRows: BigInt(affectedRows), rows: [] }
}

/** Missing in mysql2's types. */
const socketOf = (connection: PoolConnection) =>
  (connection as unknown as { stream: Socket }).stream

const hasEnded = (session: PoolConnection) => socketOf(session).destroyed

/**
 * Kills a session through a new connection, retried until it reaches the right server: on others,
 * the id is another client's. Returns false if it cannot. Never rejects.
 */
async function killSession(url: string, session: PoolConnection) {
  const server = servers.get(session)
  if (server === undefined) return false
  for (let attempt = 1; attempt <= MAX_KILL_ATTEMPTS && !hasEnded(session); attempt++) {
    const outcome = await tryKill(url, server, session)
    if (outcome !== 'other server') return outcome === 'killed'
    // Random, or two callers might alternate at a balancer.
    await sleep(Math.random() * KILL_RETRY_MS * attempt)
  }
  return true
}

async function tryKill(uri: string, server: string, session: PoolConnection) {
  const { promise, resolve } = Promise.withResolvers<'killed' | 'other server' | 'unreachable'>()
  const fail = (error: unknown) => resolve(isDisconnect(error) ? 'unreachable' : 'other server')
  const timer = setTimeout(resolve, KILL_TIMEOUT_MS, 'unreachable')
  const control = createConnection({ uri, connectTimeout: KILL_TIMEOUT_MS }).on('error', fail)
  control.query<RowDataPacket[]>(IDENTIFY_SERVER, (error, rows) => {
    if (error) fail(error)
    else if (rows[0]?.['server'] !== server) resolve('other server')
    else if (hasEnded(session)) resolve('killed')
    else control.query(`kill ${session.threadId}`, () => resolve('killed'))
  })
  const outcome = await promise
  clearTimeout(timer)
  control.destroy()
  return outcome
}
