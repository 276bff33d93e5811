import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { type RawBuilder, sql } from 'kysely'
import { headsQuery } from './claims.ts'
import { type Log, Loop, type Timing } from './loop.ts'
import { countJobs, countWaiting, listKinds, type Waiting } from './query.ts'
import { findPaused } from './queues.ts'
import type { Db, JobState } from './tables.ts'

const COUNT_EVERY_MS = 5_000
/** A caller during a longer count gets the last figures. */
const MAX_WAIT_MS = 50
const CHECK_EVERY_MS = 30_000
const MAX_READS = 5

export interface Figures extends Waiting {
  /** In all processes, each up to 100 000. */
  states: Record<JobState, number>
}

interface HealthOptions {
  open(): Db
  log: Log
  timing: Timing
  queueOf(): ReadonlyMap<string, string>
}

interface OpenTransaction {
  connection: number
  since: Date
}

/** Counts jobs for metrics, and warns when old row versions make claims slow. */
export class Health {
  readonly #options: HealthOptions
  readonly loop: Loop
  #figures: Figures | undefined
  #counting: Promise<void> | undefined
  #countedAt = Number.NEGATIVE_INFINITY
  #countFails = false
  #isSlow = false
  /** Of a kind's first queued job; of the kinds, the longest. */
  claimReadMs: number | undefined
  /** InnoDB's, where the database's user may read it. */
  historyLength: number | undefined

  constructor(options: HealthOptions) {
    const { log, timing } = options
    this.#options = options
    const { maxBackoffMs } = timing
    const runOnce = () => this.runOnce()
    this.loop = new Loop({ name: 'health', log, restMs: CHECK_EVERY_MS, maxBackoffMs, runOnce })
  }

  /** A few seconds old, unless counting takes longer; undefined without the database. */
  async figures(): Promise<Figures | undefined> {
    if (performance.now() - this.#countedAt >= COUNT_EVERY_MS)
      this.#counting ??= this.#count().finally(() => {
        this.#counting = undefined
      })
    await Promise.race([this.#counting, sleep(MAX_WAIT_MS)])
    return this.#figures
  }

  async runOnce(): Promise<boolean> {
    const db = this.#options.open()
    const { slowReadMs } = this.#options.timing
    this.claimReadMs = await timeClaimRead(db, slowReadMs)
    this.historyLength = await readHistoryLength(db)
    const { claimReadMs } = this
    const isSlow = claimReadMs >= slowReadMs
    if (isSlow && !this.#isSlow) this.#warn(await findOldestTransaction(db))
    if (!isSlow && this.#isSlow) this.#options.log.info({ claimReadMs }, 'Claims are fast again')
    this.#isSlow = isSlow
    return false
  }

  async #count(): Promise<void> {
    const { open, log, queueOf } = this.#options
    try {
      const db = open()
      const states = await countJobs(db)
      const { queues, parked } = await countWaiting(db, queueOf())
      const paused = await findPaused(db)
      // More workers would not start jobs that wait for an operator.
      for (const row of queues) if (paused.has(row.queue)) row.oldestMs = 0
      this.#figures = { states, queues, parked }
      this.#countFails = false
    } catch (error) {
      const text = 'Cannot count the jobs: their metrics are missing'
      if (!this.#countFails) log.warn({ err: error }, text)
      this.#countFails = true
      this.#figures = undefined
    } finally {
      this.#countedAt = performance.now()
    }
  }

  #warn(oldest: OpenTransaction | undefined): void {
    const { claimReadMs, historyLength } = this
    const cause = 'Claims of jobs are slow, because InnoDB keeps old rows for an open transaction'
    const text = oldest
      ? `${cause}: end it with KILL ${oldest.connection}`
      : `${cause}: find it in information_schema.innodb_trx, and end it with KILL`
    const openSince = oldest?.since.toISOString()
    this.#options.log.warn({ claimReadMs, historyLength, openSince }, text)
  }
}

async function timeClaimRead(db: Db, slowMs: number): Promise<number> {
  const times: number[] = []
  for (const kind of await listKinds(db)) times.push(await timeHead(db, kind, slowMs))
  return Math.max(0, ...times)
}

/** The shortest of some, without the round trip: a busy machine makes reads long, too. */
async function timeHead(db: Db, kind: string, slowMs: number): Promise<number> {
  let [roundTripMs, readMs] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY]
  for (let read = 0; read < MAX_READS && readMs >= slowMs; read++) {
    readMs = Math.min(readMs, await time(headsQuery([kind], 1), db))
    if (readMs >= slowMs) roundTripMs = Math.min(roundTripMs, await time(sql`select 1`, db))
  }
  return readMs < slowMs ? readMs : readMs - roundTripMs
}

async function time(query: RawBuilder<unknown>, db: Db): Promise<number> {
  const startedAt = performance.now()
  await query.execute(db)
  return performance.now() - startedAt
}

/** On MySQL it takes the privilege PROCESS. */
async function readHistoryLength(db: Db): Promise<number | undefined> {
  const { rows } = await sql<{ Value: string }>`
    show global status like 'Innodb_history_list_length'
  `.execute(db)
  const [status] = rows
  if (status) return Number(status.Value)
  const metrics = await sql<{ count: string }>`
    select count from information_schema.innodb_metrics where name = 'trx_rseg_history_len'
  `
    .execute(db)
    .catch(unlessDenied)
  return metrics && Number(metrics.rows[0]?.count)
}

async function findOldestTransaction(db: Db): Promise<OpenTransaction | undefined> {
  const transactions = await sql<OpenTransaction>`
    select trx_mysql_thread_id as connection, trx_started as since
    from information_schema.innodb_trx order by trx_started limit 1
  `
    .execute(db)
    .catch(unlessDenied)
  return transactions?.rows[0]
}

const ACCESS_DENIED = 1227

function unlessDenied(error: unknown): undefined {
  if ((error as { errno?: unknown }).errno !== ACCESS_DENIED) throw error
}
