import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import { performance } from 'node:perf_hooks'
import { setImmediate as immediate, setTimeout as sleep } from 'node:timers/promises'
import { AppError } from '../errors.ts'
import type { Log } from '../log.ts'
import type { Consumer } from './engine.ts'
import type { JobHandler } from './handler.ts'
import { Loop } from './loop.ts'
import { type Claim, type JobChange, type Outcome, type Settlement, toChange } from './record.ts'
import { isRetryable, Run } from './run.ts'
import type { JobStore } from './store.ts'
import type { Timing } from './timing.ts'

const SETTLE_BATCH = 100
/** How many jobs a worker holds at most, those included whose ends are not written yet; times its concurrency. */
const MAX_HELD = 2

export interface WorkerOptions {
  store: JobStore
  log: Log
  concurrency: number
  timing: Timing
  handlers: readonly JobHandler[]
  onChange: (changes: readonly JobChange[]) => void
  /** There is room again. */
  onRoom: () => void
}

const CANCELLED = new AppError('cancelled', 'The job was cancelled')
const TAKEN_OVER = new AppError('cancelled', 'Another process has taken the job over')
const STOPPING = new AppError('unavailable', 'The service is stopping')

/** Runs jobs in this process: as many at once as it may, each for as long as the store says that it holds it. */
export class Worker implements Consumer {
  /** Unique for each process that ever was: a name that comes back would write in the name of the one before. */
  readonly name = `${hostname().slice(0, 60)}:${process.pid}:${randomBytes(4).toString('hex')}`
  readonly #options: WorkerOptions
  readonly #handlers: Map<string, JobHandler>
  readonly #kinds: ReadonlySet<string>
  readonly #runs = new Set<Run>()
  readonly #watch: Loop
  readonly #settle: Loop
  readonly #unknown = new Set<string>()
  readonly #ended: { settlement: Settlement; written: () => void }[] = []
  #working = 0
  #claiming = 0
  #renewedAt = 0
  #stopping = false
  /** Whether what ends because of the stop is given back, as if it had not been begun. */
  #sparing = false

  constructor(options: WorkerOptions) {
    const { log, handlers, timing } = options
    this.#options = options
    this.#handlers = new Map(handlers.map((handler) => [handler.job.name, handler]))
    const kinds = handlers.map(({ job }) => job.name)
    const twice = kinds.find((kind, index) => kinds.indexOf(kind) !== index)
    if (twice) throw new Error(`Two handlers for one kind of job: ${twice}`)
    this.#kinds = new Set(kinds)
    this.#watch = new Loop({ name: 'watch', log, restMs: timing.watchMs, runOnce: () => this.#watchOnce() })
    this.#settle = new Loop({ name: 'settle', log, restMs: timing.pollMs, runOnce: () => this.#settleOnce() })
  }

  /** How many handlers are at work. */
  get running(): number {
    return this.#working
  }

  /** The next jobs are claimed while the ends of the last ones are being written, but no further ahead than that. */
  get room(): number {
    if (this.#stopping) return 0
    const { concurrency } = this.#options
    return Math.min(concurrency - this.#working, MAX_HELD * concurrency - this.#runs.size) - this.#claiming
  }

  start(): void {
    this.#watch.start()
    this.#settle.start()
  }

  async claim(ids?: readonly string[]): Promise<boolean> {
    const limit = Math.min(this.room, ids?.length ?? Number.POSITIVE_INFINITY)
    if (limit <= 0) return false
    const { store, timing } = this.#options
    this.#claiming += limit
    try {
      const { claims, unknown, more } = await store.claim({
        worker: this.name,
        kinds: this.#kinds,
        limit,
        leaseMs: timing.leaseMs,
        ids,
      })
      for (const claim of claims) this.#begin(claim)
      this.#warnOf(unknown)
      return more
    } finally {
      this.#claiming -= limit
    }
  }

  /** Ends what this process runs of a job, if it does. */
  abort(id: string): void {
    for (const run of this.#runs) if (run.claim.id === id) run.abort(CANCELLED)
  }

  /**
   * Lets the jobs that are nearly done finish, tells the others to end, and gives back what is still held, so that another
   * process need not wait for the leases to run out. Not after a crash: see `Jobs.stop`.
   */
  async stop(crashed: boolean): Promise<void> {
    this.#stopping = true
    this.#sparing = !crashed
    const { graceMs } = this.#options.timing
    await this.#idle(graceMs)
    for (const run of this.#runs) run.abort(STOPPING)
    await this.#idle(graceMs)
    await Promise.all([this.#watch.stop(), this.#settle.stop()])
    await this.#giveBack()
  }

  /** Resolves when nothing runs and all is written, or after `timeoutMs`. */
  async #idle(timeoutMs: number): Promise<void> {
    const deadline = performance.now() + timeoutMs
    while (this.#runs.size > 0 && performance.now() < deadline) await sleep(10)
  }

  async #giveBack(): Promise<void> {
    const written = new Set(this.#ended.map(({ settlement }) => settlement.claim))
    const held = claimsOf([...this.#runs]).filter((claim) => !written.has(claim))
    const settlements = this.#ended.map(({ settlement }) => settlement)
    if (this.#sparing) settlements.push(...held.map((claim): Settlement => ({ claim, outcome: { state: 'queued' } })))
    if (settlements.length > 0) this.#options.onChange(await this.#options.store.settle(settlements))
  }

  #begin(claim: Claim): void {
    const run = new Run(claim, this.#handlers.get(claim.kind) as JobHandler)
    this.#runs.add(run)
    this.#working++
    this.#options.onChange([toChange({ ...claim, state: 'running', progress: 0, note: null, error: null })])
    void this.#follow(run)
  }

  /** From the handler's start until its end is written and it has really ended, which leaves room for the next. */
  async #follow(run: Run): Promise<void> {
    const { verdict, settled } = run.start()
    const left = settled.then(() => {
      this.#working--
      this.#options.onRoom()
    })
    const { outcome, error } = await verdict
    const { promise: written, resolve } = Promise.withResolvers<void>()
    this.#ended.push({
      settlement: { claim: run.claim, outcome: this.#sparing ? spared(outcome, error) : outcome },
      written: resolve,
    })
    this.#settle.wake()
    if (error && !run.aborted) this.#log(run, outcome, error)
    await Promise.all([written, left])
    this.#runs.delete(run)
    this.#options.onRoom()
  }

  /** Writes the ends that have come together since the last time, in one go. */
  async #settleOnce(): Promise<boolean> {
    if (this.#ended.length === 0) return false
    await immediate()
    const batch = this.#ended.slice(0, SETTLE_BATCH)
    const changes = await this.#options.store.settle(batch.map(({ settlement }) => settlement))
    this.#ended.splice(0, batch.length)
    this.#options.onChange(changes)
    for (const { written } of batch) written()
    return this.#ended.length > 0
  }

  async #watchOnce(): Promise<boolean> {
    const runs = [...this.#runs]
    if (runs.length === 0) return false
    await this.#renew(runs)
    for (const run of runs) await this.#report(run)
    await this.#endLost(runs)
    return false
  }

  async #renew(runs: Run[]): Promise<void> {
    const { store, timing } = this.#options
    const startedAt = performance.now()
    if (startedAt - this.#renewedAt < timing.heartbeatMs) return
    await store.renew(claimsOf(runs), timing.leaseMs)
    this.#renewedAt = startedAt
  }

  async #report(run: Run): Promise<void> {
    const progress = run.takeProgress()
    if (!progress || run.over) return
    const { fraction, note } = progress
    const held = await this.#options.store.report(run.claim, fraction, note)
    if (held && !run.over)
      this.#options.onChange([toChange({ ...run.claim, state: 'running', progress: fraction, note, error: null })])
  }

  /** Ends what was cancelled elsewhere, or taken over after this process was away for too long. */
  async #endLost(runs: Run[]): Promise<void> {
    const lost = await this.#options.store.lost(claimsOf(runs))
    for (const run of runs) {
      if (run.over || !lost.has(run.claim)) continue
      const change = lost.get(run.claim)
      run.abort(change?.state === 'running' || change?.state === 'queued' ? TAKEN_OVER : CANCELLED)
      if (change) this.#options.onChange([change])
    }
  }

  #warnOf(kinds: readonly string[]): void {
    for (const kind of kinds) {
      if (this.#unknown.has(kind)) continue
      this.#unknown.add(kind)
      this.#options.log.warn({ kind }, 'No handler for this kind of job here: leaving it to other processes')
    }
  }

  #log({ claim: { id, kind, attempt, requestId } }: Run, { state }: Outcome, error: unknown): void {
    const next = state === 'failed' ? 'A job failed for good' : 'A job failed: it will be tried again'
    this.#options.log.warn({ err: error, job: id, kind, attempt, requestId }, next)
  }
}

/** Whatever a stopping service lacks is no fault of the job's: it is given back, and the attempt does not count. */
const spared = (outcome: Outcome, error: unknown): Outcome =>
  outcome.state === 'succeeded' || !isRetryable(error) ? outcome : { state: 'queued' }

const claimsOf = (runs: Run[]) => runs.map(({ claim }) => claim)
