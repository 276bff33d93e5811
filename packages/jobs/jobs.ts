import type { Transaction } from 'kysely'
import type { Database, Db } from '../../src/db/database.ts'
import type { Tables } from '../../src/db/tables.ts'
import { afterCommit, transaction } from '../../src/db/transaction.ts'
import { AppError } from '../../src/errors.ts'
import type { Log } from '../../src/log.ts'
import type { Engine } from './engine.ts'
import { type EnqueueOptions, toNewJob } from './enqueue-options.ts'
import type { Job, JobChange, JobRegistry, JobSchedule } from './job.ts'
import { Keeper } from './keeper.ts'
import { Loop } from './loop.ts'
import { PollingEngine } from './polling-engine.ts'
import { pruneRegistry } from './prune.ts'
import { countJobs, findJob, insertJob, listAttempts, listJobs, readChanges } from './queries.ts'
import { type JobRecord, toChange } from './record.ts'
import { Schedules } from './schedules.ts'
import { JobStore } from './store.ts'
import type { JobState } from './tables.ts'
import { TIMING, type Timing } from './timing.ts'
import { Worker } from './worker.ts'

/**
 * No statement of ours takes near as long; a connection that hangs must not hold a loop up for
 * good.
 */
const CALL_TIMEOUT_MS = 15_000
const STOP_TIMEOUT_MS = 1_000
const COUNT_TIMEOUT_MS = 1_000
/** How often watched jobs are read. */
const WATCH_MS = 1_000

export interface JobsOptions {
  database: Database
  log: Log
  /** How many jobs this process runs at once; 0 leaves them to other processes. */
  concurrency: number
  /** How long finished jobs are kept, in milliseconds. */
  keepMs: number
  timing?: Partial<Timing>
  /** What delivers jobs to this process; local polling if absent. */
  engine?: Engine
}

/** The process's end of the durable jobs. `main.ts` opens it. */
export class Jobs implements AsyncDisposable {
  readonly #database: Database
  readonly #options: JobsOptions
  readonly #timing: Timing
  readonly #store: JobStore
  readonly #engine: Engine
  readonly #listeners = new Set<Listener>()
  readonly #changedMeanwhile = new Set<string>()
  readonly #watch: Loop
  readonly #closing = new AbortController()
  #worker: Worker | undefined
  #keeper: Keeper | undefined
  #stopped: Promise<void> | undefined
  #counting: Promise<Record<JobState, number>> | undefined
  #countFails = false

  constructor(options: JobsOptions) {
    const { database, log, keepMs, timing } = options
    this.#database = database
    this.#options = options
    this.#timing = { ...TIMING, ...timing }
    this.#store = new JobStore(this.#open, { keepMs, openReserved: this.#openReserved })
    this.#watch = new Loop({
      name: 'read',
      log,
      restMs: WATCH_MS,
      maxBackoffMs: this.#timing.maxBackoffMs,
      runOnce: () => this.#readWatched(),
    })
    this.#engine = options.engine ?? new PollingEngine({ log, timing: this.#timing })
  }

  /** How many jobs run in this process. */
  get running(): number {
    return this.#worker?.running ?? 0
  }

  /**
   * Begins to run jobs. @throws Error when two handlers are for one kind, or a cron expression is
   * wrong.
   */
  start(registry: JobRegistry): void {
    const { log, concurrency } = this.#options
    const own = pruneRegistry(this.#store, this.#open)
    const options = { store: this.#store, log, timing: this.#timing, onChange: this.#notify }
    const worker = new Worker({
      ...options,
      concurrency,
      handlers: [...own.handlers, ...registry.handlers],
      onRoom: () => this.#engine.room(),
    })
    const fire = async (trx: Transaction<Tables>, { name, job, input }: JobSchedule) => {
      const { id } = await this.enqueue(trx, job, input as never, { dedupeKey: `schedule:${name}` })
      afterCommit(trx, () => worker.claimFired(id))
    }
    const schedules = new Schedules(
      this.#openReserved,
      [...own.schedules, ...registry.schedules],
      fire,
    )
    this.#worker = worker
    this.#keeper = new Keeper({ ...options, schedules })
    worker.start()
    this.#keeper.start()
    this.#engine.start(worker)
    this.#watch.start()
  }

  /**
   * Puts a job into the queue, in the caller's transaction: it exists when that commits, and not
   * otherwise.
   *
   * @throws AppError `too_large`; TypeError or RangeError for an input that JSON cannot say, or an
   * option out of range.
   */
  async enqueue<Input>(
    trx: Transaction<Tables>,
    job: Job<Input, unknown>,
    input: Input,
    options: EnqueueOptions = {},
  ): Promise<{ id: string }> {
    const { id, state } = await insertJob(trx, toNewJob(job, input, options))
    const change = { id, kind: job.name, state, progress: 0, note: null, attempt: 0, error: null }
    // An unfinished one that has the key may be at any state by now: it has told of itself.
    if (state === 'queued' || state === 'scheduled') afterCommit(trx, () => this.#notify([change]))
    return { id }
  }

  /**
   * Ends an unfinished job at once, in the caller's transaction if `db` is one. Where it runs, in
   * whichever process, its signal aborts within a second. A finished one stays as it is.
   *
   * @throws AppError `not_found`; `conflict` when it has succeeded or failed already.
   */
  async cancel(db: Db, id: string): Promise<JobRecord> {
    const job = await this.#inTransaction(db, async (trx) => {
      const { job, changed } = (await this.#store.cancel(trx, id)) ?? missing(id)
      if (changed) afterCommit(trx, () => this.#notify([job]))
      afterCommit(trx, () => this.#worker?.abort(id))
      return job
    })
    if (job.state !== 'cancelled')
      throw new AppError('conflict', `The job has ${job.state} already`)
    return job
  }

  /**
   * Queues a failed or cancelled job again, with all of its attempts, in the caller's transaction
   * if `db` is one.
   *
   * @throws AppError `not_found`; `conflict` when it is neither.
   */
  retry(db: Db, id: string): Promise<JobRecord> {
    return this.#inTransaction(db, async (trx) => {
      const { job, changed } = (await this.#store.retry(trx, id)) ?? missing(id)
      if (!changed)
        throw new AppError(
          'conflict',
          `Only a failed or cancelled job can be retried: this one is ${job.state}`,
        )
      afterCommit(trx, () => this.#notify([job]))
      return job
    })
  }

  readonly find = findJob
  readonly list = listJobs
  readonly attempts = listAttempts

  /**
   * How many jobs there are in each state, in all processes together; of each state 100 000 are
   * counted, which may take 1 s at most. Calls that come while they are being counted share the
   * result.
   */
  counts(): Promise<Record<JobState, number>> {
    this.#counting ??= this.#count().finally(() => {
      this.#counting = undefined
    })
    return this.#counting
  }

  /**
   * On a reserved connection: under load is when the figures are needed. Logs when they begin to
   * fail.
   */
  async #count(): Promise<Record<JobState, number>> {
    try {
      const counts = await countJobs(
        this.#database.withSignal(AbortSignal.timeout(COUNT_TIMEOUT_MS), { reserved: true }),
      )
      this.#countFails = false
      return counts
    } catch (error) {
      if (!this.#countFails)
        this.#options.log.warn({ err: error }, 'Cannot count the jobs: their figures are missing')
      this.#countFails = true
      throw error
    }
  }

  /**
   * Calls `listener` after the commit of each change that this process makes to a job or notices,
   * until the returned function is called. Other processes do not notify of what they do: the jobs
   * that `watched` names are read as well, at once and then every second, and `listener` is called
   * when one is not as it last heard.
   *
   * @param watched ids of jobs that somebody waits for, wherever they run.
   */
  onChange(
    listener: (change: JobChange) => void,
    watched: () => Iterable<string> = () => [],
  ): () => void {
    const entry = { listener, watched, lastSent: new Map<string, string>() }
    this.#listeners.add(entry)
    this.#watch.wake()
    return () => this.#listeners.delete(entry)
  }

  /**
   * Claims no more, and gives back what is not done soon. Jobs may still be enqueued.
   *
   * @param crashed nothing is given back then: one of the jobs may be to blame, and would bring
   * down process after process. Others take them over when their leases run out, and the attempt
   * counts.
   */
  stop(crashed = false): Promise<void> {
    this.#stopped ??= this.#stop(crashed)
    return this.#stopped
  }

  async [Symbol.asyncDispose]() {
    await this.stop()
  }

  async #stop(crashed: boolean): Promise<void> {
    const { graceMs } = this.#timing
    // A database that hangs holds nothing up: what could not be given back comes free when its
    // lease runs out.
    const timer = setTimeout(
      () => this.#closing.abort(new AppError('unavailable', 'The service is stopping')),
      2 * graceMs + STOP_TIMEOUT_MS,
    )
    try {
      await Promise.all([this.#keeper?.stop(), this.#watch.stop(), this.#engine.stop()])
      await this.#worker?.stop(crashed)
    } catch (error) {
      this.#options.log.warn(
        { err: error },
        'Could not give back all jobs: others take them over when their leases run out',
      )
    } finally {
      clearTimeout(timer)
      this.#closing.abort(new AppError('unavailable', 'The service is stopping'))
    }
  }

  readonly #open = () => this.#database.withSignal(this.#callSignal())

  readonly #openReserved = () => this.#database.withSignal(this.#callSignal(), { reserved: true })

  #callSignal() {
    return AbortSignal.any([this.#closing.signal, AbortSignal.timeout(CALL_TIMEOUT_MS)])
  }

  #inTransaction<T>(db: Db, story: (trx: Transaction<Tables>) => Promise<T>): Promise<T> {
    return db.isTransaction
      ? story(db as Transaction<Tables>)
      : transaction(db, story, 'read committed')
  }

  readonly #notify = (changes: readonly JobChange[]) => {
    if (changes.some(({ state }) => state === 'queued')) this.#engine.queued([])
    for (const change of changes.map(toChange)) {
      this.#changedMeanwhile.add(change.id)
      for (const entry of this.#listeners) this.#send(entry, change)
    }
  }

  /** Reads the watched jobs, but says nothing of those that changed here in the meantime. */
  async #readWatched(): Promise<boolean> {
    const watched = new Map(
      [...this.#listeners].map((entry) => [entry, new Set(entry.watched())] as const),
    )
    const ids = new Set([...watched.values()].flatMap((set) => [...set]))
    this.#changedMeanwhile.clear()
    const changes = ids.size === 0 ? [] : await readChanges(this.#open(), [...ids])
    for (const [entry, set] of watched) {
      for (const id of entry.lastSent.keys()) if (!set.has(id)) entry.lastSent.delete(id)
      for (const change of changes)
        if (set.has(change.id) && !this.#changedMeanwhile.has(change.id))
          this.#sendNew(entry, change)
    }
    return false
  }

  #sendNew(entry: Listener, change: JobChange) {
    if (entry.lastSent.get(change.id) === JSON.stringify(change)) return
    entry.lastSent.set(change.id, JSON.stringify(change))
    this.#send(entry, change)
  }

  #send({ listener, lastSent }: Listener, change: JobChange) {
    if (lastSent.has(change.id)) lastSent.set(change.id, JSON.stringify(change))
    try {
      listener(change)
    } catch (error) {
      this.#options.log.error({ err: error, job: change.id }, 'A listener of job changes failed')
    }
  }
}

interface Listener {
  listener: (change: JobChange) => void
  watched: () => Iterable<string>
  /** The watched jobs as `listener` last heard of them, in JSON. */
  lastSent: Map<string, string>
}

function missing(id: string): never {
  throw new AppError('not_found', `There is no job ${id}`)
}
