import { setTimeout as sleep } from 'node:timers/promises'
import {
  CompiledQuery,
  DefaultQueryExecutor,
  Kysely,
  MysqlDialect,
  MysqlDriver,
  sql,
  type TransactionSettings,
} from 'kysely'
import { createPool, type Pool, type PoolConnection, type PoolOptions } from 'mysql2'
import { AppError } from '../errors.ts'
import {
  answersPing,
  discard,
  MysqlConnection,
  type OnStatement,
  prepareSession,
} from './connection.ts'
import { unavailable } from './errors.ts'
import { Backlog, Semaphore, type WaitLimits } from './semaphore.ts'
import type { Tables } from './tables.ts'

/** The database, or a transaction on it. */
export type Db = Kysely<Tables>

const MAX_WAITERS = 10_000
const MAX_WAIT_MS = 2_000
const RESERVED_CONNECTIONS = 3
/** Per connection; the server allows 16 382 in all. */
const MAX_PREPARED_STATEMENTS = 200
const CONNECT_TIMEOUT_MS = 2_000
const IDLE_TIMEOUT_MS = 60_000
const PING_AFTER_IDLE_MS = 2_000
const KEEP_ALIVE_DELAY_MS = 10_000
const CLOSE_TIMEOUT_MS = 1_000

const PING = CompiledQuery.raw('select 1')

interface DatabaseOptions extends Pick<WaitLimits, 'onWait'> {
  url: string
  poolSize: number
  maxWaitMs?: number
  onStatement?: OnStatement
}

/** The connection pool. Its handles replace Kysely's driver (docs/decisions/002). */
export class Database implements AsyncDisposable {
  readonly semaphore: Semaphore
  readonly backlog: Backlog
  readonly #reserved: Semaphore
  readonly #url: string
  readonly #pool: Pool
  readonly #onStatement: OnStatement | undefined
  /** Such as `9.7.0` or `10.11.14-MariaDB`. */
  serverVersion = ''
  #silentSince = 0

  /** @throws AppError `unavailable` when the server cannot be reached or used. */
  static async open(options: DatabaseOptions): Promise<Database> {
    const database = new Database(options)
    try {
      await database.#checkServer()
      return database
    } catch (error) {
      await database[Symbol.asyncDispose]()
      const { host, pathname } = new URL(options.url)
      const message = `Cannot use the database ${host}${pathname}: ${explain(error)}`
      throw new AppError('unavailable', message, { cause: error })
    }
  }

  private constructor(options: DatabaseOptions) {
    const { url, poolSize, maxWaitMs = MAX_WAIT_MS, onWait, onStatement } = options
    const limits = { maxWaiters: MAX_WAITERS, maxWaitMs }
    const onPermitWait = (ms: number) => {
      onWait?.(ms)
      this.backlog.wake()
    }
    this.semaphore = new Semaphore(poolSize, { ...limits, onWait: onPermitWait })
    this.backlog = new Backlog(this.semaphore, { ...limits, onWait })
    this.#reserved = new Semaphore(RESERVED_CONNECTIONS, limits)
    this.#url = url
    this.#onStatement = onStatement
    this.#pool = createPool(poolOptions(url, poolSize + RESERVED_CONNECTIONS))
    this.#pool.on('connection', prepareSession)
  }

  /**
   * Creates a handle whose statements end when `signal` aborts. They throw its reason, or AppError
   * `overloaded` or `unavailable`.
   *
   * @param options `reserved` is for probes and the leases of jobs.
   */
  withSignal(signal?: AbortSignal, { reserved = false } = {}): Db {
    const semaphore = reserved ? this.#reserved : this.semaphore
    const provider: Provider = {
      provideConnection: async (use) => {
        const acquired = semaphore.acquire(signal)
        if (acquired) await acquired
        let stopped: Promise<void> | undefined
        try {
          const raw = await this.#borrow()
          const connection = new MysqlConnection(raw, this.#url, signal, this.#onStatement)
          try {
            return await use(connection)
          } finally {
            stopped = connection.release()
          }
        } finally {
          // The permit waits for the end of a killed session.
          if (stopped) void stopped.then(() => semaphore.release())
          else semaphore.release()
        }
      },
    }
    const executor = new DefaultQueryExecutor(compiler, adapter, provider)
    return new Kysely({ config: { dialect }, dialect, driver, executor })
  }

  get waiting() {
    return this.semaphore.waiting + this.backlog.waiting
  }

  /** @throws AppError `unavailable`; the signal's reason. */
  async ping(signal: AbortSignal): Promise<void> {
    await this.withSignal(signal, { reserved: true }).executeQuery(PING)
  }

  async [Symbol.asyncDispose]() {
    const closed = new Promise<void>((resolve) => this.#pool.end(() => resolve()))
    await Promise.race([closed, sleep(CLOSE_TIMEOUT_MS, undefined, { ref: false })])
  }

  #borrow(): Promise<PoolConnection> {
    return new Promise((resolve, reject) => {
      const take = () =>
        this.#pool.getConnection((error, raw) => {
          if (error) return reject(unavailable(error))
          // When it was last returned or opened; missing in mysql2's types.
          const { lastActiveTime } = raw as PoolConnection & { lastActiveTime: number }
          if (lastActiveTime > Date.now() - PING_AFTER_IDLE_MS) resolve(raw)
          else
            void this.#isAlive(raw, lastActiveTime).then((alive) => (alive ? resolve(raw) : take()))
        })
      take()
    })
  }

  /**
   * If a connection is dead, others idle then are closed without a ping: a failover or firewall has
   * most likely cut them all.
   */
  async #isAlive(raw: PoolConnection, idleSince: number): Promise<boolean> {
    const askedAt = Date.now()
    if (idleSince >= this.#silentSince && (await answersPing(raw))) return true
    discard(raw)
    this.#silentSince = Math.max(this.#silentSince, askedAt)
    return false
  }

  async #checkServer() {
    const query = sql<Server>`select @@global.sql_mode as mode, version() as version`
    const { mode, version } = (await query.execute(this.withSignal())).rows[0] as Server
    this.serverVersion = version
    if (mode.includes('NO_BACKSLASH_ESCAPES'))
      throw new Error(
        'its sql_mode has NO_BACKSLASH_ESCAPES, under which text cannot be escaped safely; ' +
          'remove that mode',
      )
  }
}

type Server = { mode: string; version: string }
type Provider = ConstructorParameters<typeof DefaultQueryExecutor>[2]

const refuse = () => Promise.reject(new Error('Take a handle by Database.withSignal()'))

/** For transactions only: connections come from the provider of each handle. */
class TransactionDriver extends MysqlDriver {
  override destroy = refuse
  override async beginTransaction(connection: MysqlConnection, settings: TransactionSettings) {
    await super.beginTransaction(connection, settings)
    connection.isInTransaction = true
  }
  override commitTransaction = (connection: MysqlConnection) => connection.commit()
  override rollbackTransaction = (connection: MysqlConnection) => connection.rollback()
}

const dialect = new MysqlDialect({ pool: refuse })
const driver = new TransactionDriver({ pool: refuse })
const compiler = dialect.createQueryCompiler()
const adapter = dialect.createAdapter()

const poolOptions = (uri: string, connectionLimit: number): PoolOptions => ({
  uri,
  connectionLimit,
  // mysql2 closes idle connections only if this is below the limit.
  maxIdle: connectionLimit - 1,
  idleTimeout: IDLE_TIMEOUT_MS,
  connectTimeout: CONNECT_TIMEOUT_MS,
  enableKeepAlive: true,
  keepAliveInitialDelay: KEEP_ALIVE_DELAY_MS,
  // The tables' collation: with another one, a comparison is no constant for the planner.
  charset: 'UTF8MB4_UNICODE_520_CI',
  maxPreparedStatements: MAX_PREPARED_STATEMENTS,
  timezone: 'Z',
  supportBigNumbers: true,
  bigNumberStrings: true,
  stringifyObjects: true,
  flags: ['-LOCAL_FILES'],
})

function explain(error: unknown): string {
  const cause = error instanceof AppError && error.cause ? error.cause : error
  if (cause instanceof AggregateError) return explain(cause.errors[0])
  return cause instanceof Error ? cause.message : String(cause)
}
