import {
  type AbortableOperationOptions,
  type Dialect,
  type Driver,
  type Kysely,
  MysqlAdapter,
  MysqlIntrospector,
  MysqlQueryCompiler,
  type TransactionSettings,
} from 'kysely'
import type { Pool, PoolConnection } from 'mysql2'
import { type KillSession, MysqlConnection } from './connection.ts'
import { unavailable } from './errors.ts'
import type { Semaphore } from './semaphore.ts'
import { answersPing, discard } from './session.ts'

/** A connection that was idle for longer is asked for a sign of life before it is used. */
const PING_AFTER_IDLE_MS = 2_000

/**
 * What mysql2 keeps of a connection besides what its types say: when it was last given back, or
 * opened.
 */
type PooledConnection = PoolConnection & { lastActiveTime: number }

export interface LimitedDriverOptions {
  /** Has a connection for each permit of both semaphores. */
  pool: Pool
  /** Bounds what requests and jobs use. */
  semaphore: Semaphore
  /** Bounds what must go on however long the queue of `semaphore` is. */
  reservedSemaphore: Semaphore
  killSession: KillSession
}

export interface AcquireOptions extends AbortableOperationOptions {
  /** Whether to take one of the reserved connections. */
  reserved?: boolean | undefined
}

/**
 * A driver in place of Kysely's own: a semaphore in front of the pool, connections that obey a
 * signal, prepared statements, and no connection handed on with a transaction open.
 * docs/decisions/002-own-driver.md has the reasons.
 */
export class LimitedDriver implements Driver {
  readonly #options: LimitedDriverOptions
  /** When a connection was first found to be silent: none that was idle then is used again. */
  #silentSince = 0

  constructor(options: LimitedDriverOptions) {
    this.#options = options
  }

  async init() {}

  /**
   * @throws AppError `overloaded` after too long a wait, `unavailable` without a database; the
   * signal's reason.
   */
  acquireConnection({ signal, reserved = false }: AcquireOptions = {}): Promise<MysqlConnection> {
    const semaphore = reserved ? this.#options.reservedSemaphore : this.#options.semaphore
    const acquired = semaphore.acquire(signal)
    return acquired
      ? acquired.then(() => this.#borrow(semaphore, signal))
      : this.#borrow(semaphore, signal)
  }

  /** Does not wait for the server to end a statement that was stopped; the permit does. */
  async releaseConnection(connection: MysqlConnection): Promise<void> {
    const stopped = connection.release()
    if (stopped) void stopped.then(() => connection.semaphore.release())
    else connection.semaphore.release()
  }

  beginTransaction(connection: MysqlConnection, settings: TransactionSettings): Promise<void> {
    return connection.begin(settings)
  }

  commitTransaction(connection: MysqlConnection): Promise<void> {
    return connection.commit()
  }

  rollbackTransaction(connection: MysqlConnection): Promise<void> {
    return connection.rollback()
  }

  destroy(): Promise<void> {
    return new Promise((resolve) => this.#options.pool.end(() => resolve()))
  }

  #borrow(semaphore: Semaphore, signal: AbortSignal | undefined): Promise<MysqlConnection> {
    const { pool, killSession } = this.#options
    return new Promise((resolve, reject) => {
      const lend = (raw: PoolConnection) =>
        resolve(new MysqlConnection(raw, { semaphore, signal, killSession }))
      const take = () =>
        pool.getConnection((error, raw) => {
          if (error) {
            semaphore.release()
            return reject(unavailable(error))
          }
          const idleSince = (raw as PooledConnection).lastActiveTime
          if (idleSince > Date.now() - PING_AFTER_IDLE_MS) lend(raw)
          else void this.#isAlive(raw, idleSince).then((alive) => (alive ? lend(raw) : take()))
        })
      take()
    })
  }

  /**
   * Whether an idle connection still leads to its server. A failover or a firewall may have cut it
   * without a word, and most likely the others with it: none that has been idle for longer is
   * asked, so that they cost one request a moment together.
   */
  async #isAlive(raw: PoolConnection, idleSince: number): Promise<boolean> {
    const askedAt = Date.now()
    if (idleSince >= this.#silentSince && (await answersPing(raw))) return true
    discard(raw)
    this.#silentSince = Math.max(this.#silentSince, askedAt)
    return false
  }
}

/** MySQL's SQL over our driver. */
export class LimitedDialect implements Dialect {
  readonly #driver: LimitedDriver

  constructor(driver: LimitedDriver) {
    this.#driver = driver
  }

  createDriver = () => this.#driver
  createQueryCompiler = () => new MysqlQueryCompiler()
  createAdapter = () => new MysqlAdapter()
  createIntrospector = (db: Kysely<unknown>) => new MysqlIntrospector(db)
}
