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
import type { Gate } from './gate.ts'
import { answersPing, discard } from './session.ts'

/** A connection that was idle for longer is asked for a sign of life before it is used. */
const PING_AFTER_IDLE_MS = 2_000

/**
 * What mysql2 keeps of a connection besides what its types say: when it was last given back, or
 * opened.
 */
type PooledConnection = PoolConnection & { lastActiveTime: number }

export interface GatedDriverOptions {
  /** Has a connection for each permit of both semaphores. */
  pool: Pool
  /** Bounds what requests and jobs use. */
  gate: Gate
  /** Bounds what must go on however long the queue of `gate` is. */
  reservedGate: Gate
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
export class GatedDriver implements Driver {
  readonly #options: GatedDriverOptions
  /** When a connection was first found to be silent: none that was idle then is used again. */
  #silentSince = 0

  constructor(options: GatedDriverOptions) {
    this.#options = options
  }

  async init() {}

  /**
   * @throws AppError `overloaded` after too long a wait, `unavailable` without a database; the
   * signal's reason.
   */
  acquireConnection({ signal, reserved = false }: AcquireOptions = {}): Promise<MysqlConnection> {
    const gate = reserved ? this.#options.reservedGate : this.#options.gate
    const entered = gate.enter(signal)
    return entered ? entered.then(() => this.#borrow(gate, signal)) : this.#borrow(gate, signal)
  }

  /** Does not wait for the server to end a statement that was stopped; the permit does. */
  async releaseConnection(connection: MysqlConnection): Promise<void> {
    const stopped = connection.release()
    if (stopped) void stopped.then(() => connection.gate.leave())
    else connection.gate.leave()
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

  #borrow(gate: Gate, signal: AbortSignal | undefined): Promise<MysqlConnection> {
    const { pool, killSession } = this.#options
    return new Promise((resolve, reject) => {
      const lend = (raw: PoolConnection) =>
        resolve(new MysqlConnection(raw, { gate, signal, killSession }))
      const take = () =>
        pool.getConnection((error, raw) => {
          if (error) {
            gate.leave()
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
export class GatedDialect implements Dialect {
  readonly #driver: GatedDriver

  constructor(driver: GatedDriver) {
    this.#driver = driver
  }

  createDriver = () => this.#driver
  createQueryCompiler = () => new MysqlQueryCompiler()
  createAdapter = () => new MysqlAdapter()
  createIntrospector = (db: Kysely<unknown>) => new MysqlIntrospector(db)
}
