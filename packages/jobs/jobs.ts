import { performance } from 'node:perf_hooks'
import { Cleanup } from './cleanup.ts'
import { type EnqueueOptions, insertJob, insertJobs, toNewJob } from './enqueue.ts'
import { JobError } from './errors.ts'
import { type Figures, Health } from './health.ts'
import type {
  Job,
  JobChange,
  JobContext,
  JobHandler,
  JobObserver,
  JobSchedule,
  RETRYABLE,
  UNFINISHED,
} from './job.ts'
import { type Log, Loop, TIMING, type Timing } from './loop.ts'
import { Maintenance, type RunBy } from './maintenance.ts'
import {
  countJobs,
  findIds,
  findJob,
  type JobDetail,
  type JobFilter,
  listAttempts,
  listJobs,
  listKinds,
} from './query.ts'
import { listQueues, type QueueRow, setPaused } from './queues.ts'
import { JobStore, readChanges, type StoreOptions } from './store.ts'
import type { Db, JobState, Trx } from './tables.ts'
import { Worker } from './worker.ts'

/** A connection that hangs must not block a loop. */
const CALL_TIMEOUT_MS = 15_000
const STOP_TIMEOUT_MS = 1_000
const READ_WATCHED_EVERY_MS = 1_000
/** One signal for all changes within this time. */
const SIGNAL_DELAY_MS = 5
const BULK_BATCH = 500
const MAX_BULK = 10_000

/** Between processes, so that none waits for its next poll. */
export interface JobSignal {
  from: string
  queued: boolean
  cancelled: string[]
}

export interface JobsOptions extends Omit<StoreOptions, 'open'> {
  /** A handle whose statements end with `signal`; `reserved` ones do not wait for others. */
  open(signal: AbortSignal, options: { reserved: boolean }): Db
  afterCommit(trx: Trx, act: () => void): void
  log: Log
  /** Unique per process lifetime: a reused name could pass a previous owner's fencing check. */
  worker: string
  /** How many jobs of each queue run at once here; `*` stands for every other queue. */
  queues: Readonly<Record<string, number>>
  /** What people may see of an error; by default only a `JobError`'s message. */
  publicMessage?(error: unknown): string
  /** The default of `trace` in `enqueue`. */
  currentTrace?(): string | undefined
  /** Calls `run`, such as within a trace, and returns what it does. */
  around?(attempt: JobContext, run: () => Promise<unknown>): Promise<unknown>
  /** To all processes, the sender included; signals may get lost. */
  signals?:
    | {
        publish(signal: JobSignal): void
        subscribe(listener: (signal: JobSignal) => void): () => void
      }
    | undefined
  observer?: JobObserver
  timing?: Partial<Timing>
}

interface Listener {
  notify(change: JobChange, isOwn: boolean): void
  watched(): Iterable<string>
  /** As JSON, by job id. */
  lastSent: Map<string, string>
}

type Change = (trx: Trx, ids: readonly string[]) => Promise<JobChange[]>

export class Jobs implements AsyncDisposable {
  readonly #options: JobsOptions
  readonly #timing: Timing
  readonly #store: JobStore
  readonly #listeners = new Set<Listener>()
  readonly #watchLoop: Loop
  readonly #closing = new AbortController()
  #worker: Worker | undefined
  readonly #health: Health
  #maintenance: Maintenance | undefined
  #cleanup: Cleanup | undefined
  #stopped: Promise<void> | undefined
  #signal: JobSignal | undefined
  #unsubscribe: (() => void) | undefined

  constructor(options: JobsOptions) {
    const { log } = options
    this.#options = options
    this.#timing = { ...TIMING, ...options.timing }
    this.#store = new JobStore({ ...options, open: this.#open })
    this.#health = new Health({
      open: () => this.#open(true),
      log,
      timing: this.#timing,
      queueOf: () => this.#queueOf,
    })
    const { maxBackoffMs } = this.#timing
    const pace = { restMs: READ_WATCHED_EVERY_MS, maxBackoffMs }
    const runOnce = () => this.#readWatched()
    this.#watchLoop = new Loop({ name: 'read watched', log, ...pace, runOnce })
  }

  get running(): number {
    return this.#worker?.running ?? 0
  }

  /** @throws Error for duplicate handlers or schedules, or a wrong cron expression. */
  start(all: { handlers: readonly JobHandler[]; schedules: readonly JobSchedule[] }): void {
    const { log, worker: name, queues, observer } = this.#options
    const { publicMessage = toPublicMessage, around = runAlone } = this.#options
    const { handlers, schedules } = all
    const common = {
      store: this.#store,
      log,
      timing: this.#timing,
      onChange: this.#notify,
      observer,
    }
    const onNotice = (change: JobChange) => this.#tell(change, false)
    const own = { name, onNotice, publicMessage, around, handlers }
    const worker = new Worker({ ...common, ...own, queues })
    const enqueue = async (trx: Trx, { name: schedule, job, input }: JobSchedule, by?: RunBy) => {
      const options = { dedupeKey: `schedule:${schedule}`, ...by }
      const enqueued = await this.enqueue(trx, job, input as never, options)
      this.#options.afterCommit(trx, () => worker.claimScheduled(schedule, enqueued.id, job.name))
      return enqueued
    }
    const runs = (queue: string) => worker.runs(queue)
    this.#maintenance = new Maintenance({ ...common, schedules, runs, enqueue })
    this.#cleanup = new Cleanup({ ...common, kinds: worker.runKinds })
    this.#worker = worker
    this.#unsubscribe = this.#options.signals?.subscribe(({ from, queued, cancelled }) => {
      if (from === name) return
      if (queued) worker.wake()
      if (cancelled.length > 0) worker.abort(new Set(cancelled))
    })
    for (const part of [worker, ...this.#loops]) part.start()
  }

  /**
   * Enqueues a job in the caller's transaction.
   *
   * @throws TypeError or RangeError for an invalid input or option; JobError `too_large`.
   */
  async enqueue<Input>(
    trx: Trx,
    job: Job<Input, unknown>,
    input: Input,
    options?: EnqueueOptions,
  ): Promise<{ id: string }> {
    const all = { ...this.#traced, ...options }
    const { id, state, isNew } = await insertJob(trx, toNewJob(job, input, all))
    const change = { id, kind: job.name, state, progress: 0, note: null, attempt: 0, error: null }
    // The earlier job with the key has notified of itself.
    if (isNew) this.#options.afterCommit(trx, () => this.#notify([change]))
    return { id }
  }

  /**
   * Enqueues jobs of one kind in the caller's transaction; the ids are in the order of the inputs.
   *
   * @throws as `enqueue`.
   */
  async enqueueMany<Input>(
    trx: Trx,
    job: Job<Input, unknown>,
    inputs: readonly Input[],
    options?: Omit<EnqueueOptions, 'dedupeKey'>,
  ): Promise<{ ids: string[] }> {
    const { ids, state } = await insertJobs(trx, job, inputs, { ...this.#traced, ...options })
    const common = { kind: job.name, state, progress: 0, note: null, attempt: 0, error: null }
    this.#options.afterCommit(trx, () => this.#notify(ids.map((id) => ({ id, ...common }))))
    return { ids }
  }

  /**
   * Ends an unfinished job, whose signal aborts within a second; in the transaction if `db` is one.
   *
   * @throws JobError `not_found`; `conflict` when it has succeeded or failed.
   */
  async cancel(db: Db, id: string): Promise<JobDetail> {
    const { job } = await this.#changeOne(db, id, this.#cancel)
    if (job.state === 'cancelled') return job
    throw new JobError('conflict', `The job has ${job.state} already`)
  }

  /**
   * Queues a failed, cancelled or parked job again with all attempts.
   *
   * @throws JobError `not_found`; `conflict` for other states.
   */
  async retry(db: Db, id: string): Promise<JobDetail> {
    const { job, changed } = await this.#changeOne(db, id, this.#retry)
    if (changed) return job
    const expected = 'Only a failed, cancelled or parked job can be retried'
    throw new JobError('conflict', `${expected}: this one is ${job.state}`)
  }

  /** Cancels the newest that match, up to 10 000 or `bulkMs`, in short transactions. */
  readonly cancelAll = (db: Db, filter: JobFilter & { state: (typeof UNFINISHED)[number] }) =>
    this.#changeAll(db, filter, this.#cancel)

  readonly retryAll = (db: Db, filter: JobFilter & { state: (typeof RETRYABLE)[number] }) =>
    this.#changeAll(db, filter, this.#retry)

  readonly find: (db: Db, id: string) => Promise<JobDetail | undefined> = findJob
  readonly list = listJobs
  readonly count = countJobs
  readonly attempts = listAttempts

  async kinds(db: Db): Promise<{ kind: string; isHandled: boolean }[]> {
    const handled = new Set(this.#worker?.kinds)
    const all = handled.union(new Set(await listKinds(db)))
    return [...all].sort().map((kind) => ({ kind, isHandled: handled.has(kind) }))
  }

  queues(db: Db): Promise<QueueRow[]> {
    return listQueues(db, this.#queueOf)
  }

  /**
   * Stops claims of its jobs within a second; those that run go on.
   *
   * @throws JobError `not_found` for a queue that no job and no process names.
   */
  pauseQueue(db: Db, queue: string): Promise<void> {
    return setPaused(db, queue, { paused: true, queueOf: this.#queueOf })
  }

  /** @throws as `pauseQueue`. */
  resumeQueue(db: Db, queue: string): Promise<void> {
    return setPaused(db, queue, { paused: false, queueOf: this.#queueOf })
  }

  readonly schedules = async (db: Db) => (await this.#maintenance?.list(db)) ?? []

  /**
   * Enqueues a schedule's job now, or returns its unfinished one.
   *
   * @throws JobError `not_found`.
   */
  runSchedule(db: Db, name: string, by: RunBy = {}): Promise<JobDetail> {
    return this.#inTransaction(db, async (trx) => {
      const { id } = await this.#started.runNow(trx, name, by)
      return (await findJob(trx, id, true)) as JobDetail
    })
  }

  /** Leaves out its slots in all processes until it is resumed. @throws as `runSchedule`. */
  async pauseSchedule(db: Db, name: string): Promise<void> {
    await this.#started.pause(db, name)
  }

  /** @throws as `runSchedule`. */
  async resumeSchedule(db: Db, name: string): Promise<void> {
    await this.#started.resume(db, name)
  }

  /** Of all processes; undefined without the database. */
  figures(): Promise<Figures | undefined> {
    return this.#health.figures()
  }

  get claimReadMs(): number | undefined {
    return this.#health.claimReadMs
  }

  get historyLength(): number | undefined {
    return this.#health.historyLength
  }

  /**
   * Calls `notify` after each change that this process makes (`isOwn`) or notices. Those of
   * `watched` are read every second.
   */
  onChange(
    notify: (change: JobChange, isOwn: boolean) => void,
    watched: () => Iterable<string> = () => [],
  ): () => void {
    const listener = { notify, watched, lastSent: new Map<string, string>() }
    this.#listeners.add(listener)
    this.#watchLoop.wake()
    return () => this.#listeners.delete(listener)
  }

  stopClaiming(): void {
    this.#worker?.stopClaiming()
  }

  /**
   * Releases jobs that are not done soon. Others may still be enqueued.
   *
   * @param crashed releases nothing: a job may be the cause, so its attempt must count.
   */
  stop(crashed = false): Promise<void> {
    this.#stopped ??= this.#stop(crashed)
    return this.#stopped
  }

  async [Symbol.asyncDispose]() {
    await this.stop()
  }

  get #queueOf(): ReadonlyMap<string, string> {
    return this.#worker?.queueOf ?? new Map()
  }

  get #traced() {
    return { trace: this.#options.currentTrace?.() ?? null }
  }

  get #started(): Maintenance {
    if (!this.#maintenance) throw new Error('Expected `start` to be called before')
    return this.#maintenance
  }

  get #loops(): Loop[] {
    const parts = [this.#maintenance, this.#cleanup, this.#health]
    return [this.#watchLoop, ...parts.flatMap((part) => part?.loop ?? [])]
  }

  async #stop(crashed: boolean): Promise<void> {
    const close = () => this.#closing.abort(new JobError('unavailable', 'The service is stopping'))
    // What a hanging database does not release is rescued later.
    const timer = setTimeout(close, 2 * this.#timing.graceMs + STOP_TIMEOUT_MS)
    try {
      const loops = Promise.all(this.#loops.map((loop) => loop.stop()))
      await this.#worker?.stop(crashed)
      await loops
    } catch (error) {
      const text = 'Could not release all jobs: others take them over when their leases expire'
      this.#options.log.warn({ err: error }, text)
    } finally {
      this.#unsubscribe?.()
      this.#flushSignal()
      clearTimeout(timer)
      close()
    }
  }

  readonly #open = (reserved: boolean): Db => {
    const timeout = AbortSignal.timeout(CALL_TIMEOUT_MS)
    return this.#options.open(AbortSignal.any([this.#closing.signal, timeout]), { reserved })
  }

  readonly #cancel: Change = async (trx, ids) => {
    const changes = await this.#store.cancel(trx, ids)
    const cancelled = new Set(changes.map(({ id }) => id))
    this.#options.afterCommit(trx, () => {
      this.#worker?.abort(cancelled)
      this.#publishSignal({ cancelled })
    })
    return changes
  }

  readonly #retry: Change = (trx, ids) => this.#store.retry(trx, ids)

  async #changeOne(db: Db, id: string, change: Change) {
    const story = async (trx: Trx) => {
      const changed = (await this.#change(trx, [id], change)) > 0
      // A plain read may see an older snapshot.
      const job = await findJob(trx, id, true)
      if (!job) throw new JobError('not_found', `There is no job ${id}`)
      return { job, changed }
    }
    return this.#inTransaction(db, story)
  }

  #inTransaction<T>(db: Db, story: (trx: Trx) => Promise<T>): Promise<T> {
    const { transaction } = this.#options
    return db.isTransaction ? story(db as Trx) : transaction(db, story, 'read committed')
  }

  /** Newest first: none is retried twice. */
  async #changeAll(db: Db, filter: JobFilter & { state: JobState }, change: Change) {
    const story = (ids: string[]) => (trx: Trx) => this.#change(trx, ids, change)
    const deadline = performance.now() + this.#timing.bulkMs
    let changed = 0
    let before: string | undefined
    for (let seen = BULK_BATCH; ; seen += BULK_BATCH) {
      const ids = await findIds(db, filter, { limit: BULK_BATCH, before })
      if (ids.length > 0)
        changed += await this.#options.transaction(db, story(ids), 'read committed')
      if (ids.length < BULK_BATCH) return { changed, more: false }
      before = ids.at(-1)
      if (seen >= MAX_BULK || performance.now() >= deadline)
        return { changed, more: (await findIds(db, filter, { limit: 1, before })).length > 0 }
    }
  }

  async #change(trx: Trx, ids: readonly string[], change: Change): Promise<number> {
    const changes = await change(trx, ids)
    if (changes.length > 0) this.#options.afterCommit(trx, () => this.#notify(changes))
    return changes.length
  }

  readonly #notify = (changes: readonly JobChange[]) => {
    if (changes.some(({ state }) => state === 'queued')) {
      this.#worker?.wake()
      this.#publishSignal({ queued: true })
    }
    for (const change of changes) this.#tell(change, true)
  }

  #tell(change: JobChange, isOwn: boolean) {
    const plain = toChange(change)
    for (const listener of this.#listeners) this.#send(listener, plain, isOwn)
  }

  #publishSignal({ queued = false, cancelled = new Set<string>() }) {
    if (!this.#options.signals || (!queued && cancelled.size === 0)) return
    if (!this.#signal) setTimeout(() => this.#flushSignal(), SIGNAL_DELAY_MS).unref()
    this.#signal ??= { from: this.#options.worker, queued: false, cancelled: [] }
    this.#signal.queued ||= queued
    this.#signal.cancelled.push(...cancelled)
  }

  #flushSignal() {
    if (this.#signal) this.#options.signals?.publish(this.#signal)
    this.#signal = undefined
  }

  async #readWatched(): Promise<boolean> {
    for (const listener of this.#listeners) {
      const last = listener.lastSent
      const before = new Map([...listener.watched()].map((id) => [id, last.get(id) ?? '']))
      listener.lastSent = new Map(before)
      for (const change of await readChanges(this.#open(false), [...before.keys()])) {
        const sent = before.get(change.id)
        // A change that was sent meanwhile is newer than the row.
        const isNewest = listener.lastSent.get(change.id) === sent
        if (isNewest && sent !== JSON.stringify(change)) this.#send(listener, change, false)
      }
    }
    return false
  }

  #send({ notify, lastSent }: Listener, change: JobChange, isOwn: boolean) {
    if (lastSent.has(change.id)) lastSent.set(change.id, JSON.stringify(change))
    try {
      notify(change, isOwn)
    } catch (error) {
      this.#options.log.error({ err: error, job: change.id }, 'A listener of job changes failed')
    }
  }
}

function toChange({ id, kind, state, progress, note, attempt, error }: JobChange): JobChange {
  return { id, kind, state, progress, note, attempt, error }
}

const runAlone = (_: unknown, run: () => Promise<unknown>) => run()

const toPublicMessage = (error: unknown) =>
  error instanceof JobError ? error.message : 'Something went wrong on our side'
