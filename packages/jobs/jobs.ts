import type { Transaction } from 'kysely'
import type { Database } from '../../src/db/database.ts'
import type { JobState, Tables } from '../../src/db/tables.ts'
import { afterCommit } from '../../src/db/transaction.ts'
import { AppError } from '../../src/errors.ts'
import type { Log } from '../../src/log.ts'
import type { Engine } from './engine.ts'
import { type EnqueueOptions, toNewJob } from './enqueue-options.ts'
import type { JobRegistry, JobSchedule } from './handler.ts'
import type { Job } from './job.ts'
import { Keeper } from './keeper.ts'
import { PollingEngine } from './polling-engine.ts'
import { pruneRegistry } from './prune.ts'
import { countJobs, findJob, insertJob, listAttempts, listJobs } from './queries.ts'
import type { JobChange, JobRecord } from './record.ts'
import { Schedules } from './schedules.ts'
import { JobStore } from './store.ts'
import { TIMING, type Timing } from './timing.ts'
import { Worker } from './worker.ts'

/**
 * No statement of ours takes near as long; a connection that hangs must not hold a loop up for
 * good.
 */
const CALL_TIMEOUT_MS = 15_000
const STOP_TIMEOUT_MS = 1_000
const COUNT_TIMEOUT_MS = 1_000

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
  readonly #listeners = new Set<(change: JobChange) => void>()
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
    const options = { store: this.#store, log, timing: this.#timing, onChange: this.#tell }
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
    if (state === 'queued' || state === 'scheduled') afterCommit(trx, () => this.#tell([change]))
    return { id }
  }

  /**
   * Ends an unfinished job wherever it is, at once: one that runs is told to end within a second,
   * in whichever process. A finished one stays as it is.
   *
   * @throws AppError `not_found`; `conflict` when it has succeeded or failed already.
   */
  async cancel(id: string, signal?: AbortSignal): Promise<JobRecord> {
    const { job, changed } =
      (await this.#store.cancel(id, this.#database.withSignal(signal))) ?? missing(id)
    if (changed) this.#tell([job])
    this.#worker?.abort(id)
    if (job.state !== 'cancelled')
      throw new AppError('conflict', `The job has ${job.state} already`)
    return job
  }

  /**
   * Queues a failed or cancelled job again, with all of its attempts.
   *
   * @throws AppError `not_found`; `conflict` when it is neither.
   */
  async retry(id: string, signal?: AbortSignal): Promise<JobRecord> {
    const { job, changed } =
      (await this.#store.retry(id, this.#database.withSignal(signal))) ?? missing(id)
    if (!changed)
      throw new AppError(
        'conflict',
        `Only a failed or cancelled job can be retried: this one is ${job.state}`,
      )
    this.#tell([job])
    return job
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
   * Tells of each change that this process makes to a job or sees, after its commit, until the
   * function that it gives back is called. What another process does to its own jobs is not heard
   * of here.
   */
  onChange(listener: (change: JobChange) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
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
      await Promise.all([this.#keeper?.stop(), this.#engine.stop()])
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

  readonly #tell = (changes: readonly JobChange[]) => {
    const queued = changes.filter(({ state }) => state === 'queued').map(({ id }) => id)
    if (queued.length > 0) this.#engine.queued(queued)
    for (const change of changes)
      for (const listener of this.#listeners) this.#tellOne(listener, change)
  }

  #tellOne(listener: (change: JobChange) => void, change: JobChange) {
    try {
      listener(change)
    } catch (error) {
      this.#options.log.error({ err: error, job: change.id }, 'A listener of job changes failed')
    }
  }
}

function missing(id: string): never {
  throw new AppError('not_found', `There is no job ${id}`)
}
