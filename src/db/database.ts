import { setTimeout as sleep } from 'node:timers/promises'
import {
  CompiledQuery,
  DefaultQueryExecutor,
  type DialectAdapter,
  Kysely,
  type KyselyPlugin,
  type KyselyProps,
  type QueryCompiler,
} from 'kysely'
import { createPool, type PoolOptions } from 'mysql2'
import { AppError } from '../errors.ts'
import { Backlog } from './backlog.ts'
import { LimitedDialect, LimitedDriver } from './driver.ts'
import { Semaphore } from './semaphore.ts'
import { killSession, prepareSession } from './session.ts'
import type { Tables } from './tables.ts'
import type { WaitQueueOptions } from './wait-queue.ts'

/** What a query takes: the database, or a transaction on it. */
export type Db = Kysely<Tables>

const CONNECT_TIMEOUT_MS = 2_000
const MAX_WAITERS = 10_000
const MAX_WAIT_MS = 2_000
/** Connections besides `poolSize`, for what may not wait behind requests. */
const RESERVED_CONNECTIONS = 3
/**
 * For each connection, on which the least recently used ones are closed. The server allows 16 382
 * by default for all connections of all processes together, and a statement that exceeds this
 * fails.
 */
const MAX_PREPARED_STATEMENTS = 200
const IDLE_TIMEOUT_MS = 60_000
const KEEP_ALIVE_DELAY_MS = 10_000
const CLOSE_TIMEOUT_MS = 1_000

const PING = CompiledQuery.raw('select 1')
const DESCRIBE_SERVER = CompiledQuery.raw('select @@global.sql_mode as mode, version() as version')

export interface DatabaseOptions extends Pick<WaitQueueOptions, 'onWait'> {
  url: string
  /** Applied to every query, as Kysely's own `plugins`. */
  plugins?: KyselyPlugin[]
  /** How many connections requests and jobs have; there are a few more for `reserved` handles. */
  poolSize: number
  /**
   * How long a statement or transaction may wait for a connection, in milliseconds; 2 s if absent.
   */
  maxWaitMs?: number
}

export interface HandleOptions {
  /**
   * Takes one of a few connections that requests do not use, so that a long queue does not delay
   * it. For short statements that keep the process alive in the eyes of others: renewing and
   * settling the leases of jobs, probes. Never for a request.
   */
  reserved?: boolean
}

/**
 * The process's one pool of connections. `main.ts` opens it; everything else gets handles from
 * `withSignal()`.
 */
export class Database implements AsyncDisposable {
  readonly semaphore: Semaphore
  /** Where requests that will need a connection wait before they are begun. */
  readonly backlog: Backlog
  readonly #driver: LimitedDriver
  readonly #props: Omit<KyselyProps, 'executor'>
  readonly #compiler: QueryCompiler
  readonly #adapter: DialectAdapter
  readonly #plugins: KyselyPlugin[]
  #serverVersion = ''

  /**
   * Opens the pool and checks that the server is one we can work with.
   *
   * @throws AppError `unavailable` when it cannot be reached, refuses us, or escapes strings as
   * mysql2 does not.
   */
  static async open(config: DatabaseOptions): Promise<Database> {
    const database = new Database(config)
    try {
      await database.#checkServer()
      return database
    } catch (error) {
      await database[Symbol.asyncDispose]()
      throw new AppError(
        'unavailable',
        `Cannot use the database ${redact(config.url)}: ${explain(error)}`,
        { cause: error },
      )
    }
  }

  private constructor({
    url,
    plugins = [],
    poolSize,
    maxWaitMs = MAX_WAIT_MS,
    onWait,
  }: DatabaseOptions) {
    const limits = { maxWaiters: MAX_WAITERS, maxWaitMs }
    const onPermitWait = (ms: number) => {
      onWait?.(ms)
      this.backlog.wake()
    }
    this.semaphore = new Semaphore({ permits: poolSize, ...limits, onWait: onPermitWait })
    this.backlog = new Backlog(this.semaphore, { ...limits, onWait })
    this.#driver = new LimitedDriver({
      pool: createPool(poolOptions(url, poolSize + RESERVED_CONNECTIONS)).on(
        'connection',
        prepareSession,
      ),
      semaphore: this.semaphore,
      reservedSemaphore: new Semaphore({ permits: RESERVED_CONNECTIONS, ...limits }),
      killSession: (connection, hasEnded) => killSession(url, connection, hasEnded),
    })
    const dialect = new LimitedDialect(this.#driver)
    // Kysely's `log` would do nothing here: its own driver writes it.
    this.#props = { config: { dialect, plugins }, dialect, driver: this.#driver }
    this.#plugins = plugins
    this.#compiler = dialect.createQueryCompiler()
    this.#adapter = dialect.createAdapter()
  }

  /**
   * A handle whose statements and transactions end when `signal` aborts. Cheap: take one for each
   * request. Without a signal, statements run for as long as they need.
   */
  withSignal(signal?: AbortSignal, { reserved }: HandleOptions = {}): Db {
    const driver = this.#driver
    const provider: Provider = {
      async provideConnection(consumer) {
        const connection = await driver.acquireConnection({ signal, reserved })
        try {
          return await consumer(connection)
        } finally {
          await driver.releaseConnection(connection)
        }
      },
    }
    const executor = new DefaultQueryExecutor(
      this.#compiler,
      this.#adapter,
      provider,
      this.#plugins,
    )
    return new Kysely({ ...this.#props, executor })
  }

  /** How many wait for a connection, begun or not. */
  get waiting() {
    return this.semaphore.waiting + this.backlog.waiting
  }

  /** As the server calls itself: `9.7.0`, `10.11.14-MariaDB`. */
  get serverVersion() {
    return this.#serverVersion
  }

  /**
   * Resolves when the database answers, however many requests wait for it.
   *
   * @throws AppError `unavailable` when it cannot be reached; the signal's reason.
   */
  async ping(signal: AbortSignal): Promise<void> {
    await this.withSignal(signal, { reserved: true }).executeQuery(PING)
  }

  /** Says goodbye to the server, which may not answer any more. */
  async [Symbol.asyncDispose]() {
    await Promise.race([this.#driver.destroy(), sleep(CLOSE_TIMEOUT_MS, undefined, { ref: false })])
  }

  async #checkServer() {
    const { rows } = await this.withSignal().executeQuery<{ mode: string; version: string }>(
      DESCRIBE_SERVER,
    )
    this.#serverVersion = rows[0]?.version ?? ''
    if (rows[0]?.mode.includes('NO_BACKSLASH_ESCAPES'))
      throw new Error(
        'its sql_mode has NO_BACKSLASH_ESCAPES, under which text cannot be escaped safely; remove that mode',
      )
  }
}

type Provider = ConstructorParameters<typeof DefaultQueryExecutor>[2]

const poolOptions = (uri: string, connectionLimit: number): PoolOptions => ({
  uri,
  connectionLimit,
  // mysql2 looks for idle connections only where this is below the limit, and destroys what is
  // above it within a second.
  maxIdle: connectionLimit - 1,
  idleTimeout: IDLE_TIMEOUT_MS,
  connectTimeout: CONNECT_TIMEOUT_MS,
  // So that firewalls do not forget idle connections, and one whose server is gone is noticed.
  enableKeepAlive: true,
  keepAliveInitialDelay: KEEP_ALIVE_DELAY_MS,
  // As the tables': with another one, a comparison with an enum is no constant for the planner,
  // which then sorts all rows.
  charset: 'UTF8MB4_UNICODE_520_CI',
  maxPreparedStatements: MAX_PREPARED_STATEMENTS,
  timezone: 'Z',
  supportBigNumbers: true,
  bigNumberStrings: true,
  stringifyObjects: true,
  flags: ['-LOCAL_FILES'],
})

function redact(url: string) {
  const { host, pathname } = new URL(url)
  return `${host}${pathname}`
}

function explain(error: unknown): string {
  const cause = error instanceof AppError && error.cause ? error.cause : error
  if (cause instanceof AggregateError) return explain(cause.errors[0])
  return cause instanceof Error ? cause.message : String(cause)
}
