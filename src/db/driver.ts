import {
  type AbortableOperationOptions,
  CompiledQuery,
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
import { translate } from './errors.ts'
import type { Gate } from './gate.ts'

const BEGIN = CompiledQuery.raw('begin')

/**
 * A driver in place of Kysely's own: a gate in front of the pool, connections that obey a signal, prepared statements,
 * and no connection handed on with a transaction open. docs/decisions/002-own-driver.md has reasons and figures.
 */
export class GatedDriver implements Driver {
  readonly #pool: Pool
  readonly #gate: Gate
  readonly #killSession: KillSession

  constructor(pool: Pool, gate: Gate, killSession: KillSession) {
    this.#pool = pool
    this.#gate = gate
    this.#killSession = killSession
  }

  async init() {}

  /** @throws AppError `overloaded` when too many wait, `unavailable` without a database; the signal's reason. */
  acquireConnection({ signal }: AbortableOperationOptions = {}): Promise<MysqlConnection> {
    const entered = this.#gate.enter(signal)
    return entered ? entered.then(() => this.#borrow(signal)) : this.#borrow(signal)
  }

  async releaseConnection(connection: MysqlConnection): Promise<void> {
    const killed = connection.release()
    if (killed) await killed
    this.#gate.leave()
  }

  async beginTransaction(connection: MysqlConnection, { isolationLevel, accessMode }: TransactionSettings): Promise<void> {
    const mode = [isolationLevel && `isolation level ${isolationLevel}`, accessMode].filter(Boolean).join(', ')
    if (mode) await connection.executeQuery(CompiledQuery.raw(`set transaction ${mode}`))
    await connection.executeQuery(BEGIN)
  }

  commitTransaction(connection: MysqlConnection): Promise<void> {
    return connection.commit()
  }

  rollbackTransaction(connection: MysqlConnection): Promise<void> {
    return connection.rollback()
  }

  destroy(): Promise<void> {
    return new Promise((resolve) => this.#pool.end(() => resolve()))
  }

  #borrow(signal: AbortSignal | undefined): Promise<MysqlConnection> {
    return new Promise((resolve, reject) =>
      this.#pool.getConnection((error, connection) => {
        if (!error) return resolve(new MysqlConnection(connection, signal, this.#killSession))
        this.#gate.leave()
        reject(translate(error))
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
