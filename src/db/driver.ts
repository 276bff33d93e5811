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
import type { Pool } from 'mysql2'
import { type KillSession, MysqlConnection } from './connection.ts'
import { unavailable } from './errors.ts'
import type { Gate } from './gate.ts'

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
 * A driver in place of Kysely's own: a semaphore in front of the pool, connections that obey a signal, prepared statements,
 * and no connection handed on with a transaction open. docs/decisions/002-own-driver.md has the reasons.
 */
export class GatedDriver implements Driver {
  readonly #options: GatedDriverOptions

  constructor(options: GatedDriverOptions) {
    this.#options = options
  }

  async init() {}

  /** @throws AppError `overloaded` after too long a wait, `unavailable` without a database; the signal's reason. */
  acquireConnection({ signal, reserved = false }: AcquireOptions = {}): Promise<MysqlConnection> {
    const gate = reserved ? this.#options.reservedGate : this.#options.gate
    const entered = gate.enter(signal)
    return entered ? entered.then(() => this.#borrow(gate, signal)) : this.#borrow(gate, signal)
  }

  async releaseConnection(connection: MysqlConnection): Promise<void> {
    const killed = connection.release()
    if (killed) await killed
    connection.gate.leave()
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
    return new Promise((resolve, reject) =>
      pool.getConnection((error, connection) => {
        if (!error) return resolve(new MysqlConnection(connection, { gate, signal, killSession }))
        gate.leave()
        reject(unavailable(error))
      }),
    )
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
