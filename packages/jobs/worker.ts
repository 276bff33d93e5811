import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import { performance } from 'node:perf_hooks'
import { setImmediate as immediate, setTimeout as sleep } from 'node:timers/promises'
import { AppError } from '../../src/errors.ts'
import type { Log } from '../../src/log.ts'
import type { Consumer } from './engine.ts'
import type { Job, JobChange, JobHandler } from './job.ts'
import { Loop } from './loop.ts'
import { type Claim, type Outcome, type Settlement, toChange } from './record.ts'
import { isRetryable, Run } from './run.ts'
import type { JobStore } from './store.ts'
import type { Timing } from './timing.ts'

const SETTLE_BATCH = 100
/**
 * How many jobs a worker holds at most, those included whose ends are not written yet; times its
 * concurrency.
 */
const MAX_HELD = 2
/** How often the queue is searched for jobs that nobody here can do, at most. */
const SEARCH_EVERY_MS = 10_000

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

/**
 * Runs jobs in this process: as many at once as it may, each for as long as the store says that it
 * holds it.
 */
export class Worker implements Consumer {
  /**
   * Unique for each process that ever was: a name that comes back would write in the name of the
   * one before.
   */
  readonly name = `${hostname().slice(0, 60)}:${process.pid}:${randomBytes(4).toString('hex')}`
  readonly #options: WorkerOptions
  readonly #handlers: Map<string, JobHandler>
  readonly #kinds: ReadonlySet<string>
  /** Those that have a concurrency of their own. */
  readonly #limited: readonly Job<never, unknown>[]
  readonly #runs = new Set<Run>()
  readonly #watch: Loop
  readonly #settle: Loop
  readonly #unknown = new Set<string>()
  readonly #ended: { settlement: Settlement; written: () => void }[] = []
  /** How many handlers of each kind are at work. */
  readonly #atWork = new Map<string, number>()
  /** How many more of each kind the claims that are under way may bring. */
  readonly #promised = new Map<string, number>()
  #working = 0
  #claiming = 0
  /**
   * Jobs that schedules have fired, and that have not been begun yet in the place that is kept for
   * them.
   */
  readonly #fired = new Set<string>()
  readonly #runsOfFired = new Set<Run>()
  #isFiring = false
  #firedClaim: Promise<unknown> | undefined
  #searchedAt = Number.NEGATIVE_INFINITY
  #renewedAt = 0
  #stopping = false
  /** Whether what ends because of the stop is given back, as if it had not been begun. */
  #sparing = false

  constructor(options: WorkerOptions) {
    const { log, handlers, timing } = options
    const { maxBackoffMs } = timing
    this.#options = options
    this.#handlers = new Map(handlers.map((handler) => [handler.job.name, handler]))
    const kinds = handlers.map(({ job }) => job.name)
    const twice = kinds.find((kind, index) => kinds.indexOf(kind) !== index)
    if (twice) throw new Error(`Two handlers for one kind of job: ${twice}`)
    this.#kinds = new Set(kinds)
    this.#limited = handlers
      .map(({ job }) => job)
      .filter(({ concurrency }) => concurrency !== Number.POSITIVE_INFINITY)
    this.#watch = new Loop({
      name: 'watch',
      log,
      restMs: timing.watchMs,
      maxBackoffMs,
      runOnce: () => this.#watchOnce(),
    })
    this.#settle = new Loop({
      name: 'settle',
      log,
      restMs: timing.pollMs,
      maxBackoffMs,
      runOnce: () => this.#settleOnce(),
    })
  }

  /** How many handlers are at work. */
  get running(): number {
    return this.#atWork.values().reduce((sum, count) => sum + count, 0)
  }

  /**
   * The next jobs are claimed while the ends of the last ones are being written, but no further
   * ahead than that.
   */
  get room(): number {
    if (this.#stopping) return 0
    const { concurrency } = this.#options
    const held = this.#runs.size - this.#runsOfFired.size
    return Math.min(concurrency - this.#working, MAX_HELD * concurrency - held) - this.#claiming
  }

  start(): void {
    this.#watch.start()
    this.#settle.start()
  }

  async claim(ids?: readonly string[]): Promise<boolean> {
    const limit = Math.min(this.room, ids?.length ?? Number.POSITIVE_INFINITY)
    if (limit <= 0) return false
    this.#claiming += limit
    try {
      const { more } = await this.#claim(limit, ids, (claim) => this.#begin(claim))
      if (!more) await this.#searchUnknown()
      return more
    } finally {
      this.#claiming -= limit
    }
  }

  /**
   * Begins a job that a schedule has fired, even if all places are taken: one more is kept for
   * these, so that upkeep goes on beside jobs that take hours. Where another has that place, it
   * waits for it, and in the queue.
   */
  claimFired(id: string): void {
    if (this.#options.concurrency === 0) return
    this.#fired.add(id)
    if (!this.#isFiring) void this.#runFired()
  }

  async #runFired(): Promise<void> {
    this.#isFiring = true
    for (const id of this.#fired) {
      this.#fired.delete(id)
      if (this.#stopping) break
      const runs: Promise<void>[] = []
      // Without the database it stays in the queue; the loops say so.
      this.#firedClaim = this.#claim(1, [id], (claim) => runs.push(this.#begin(claim, true))).catch(
        () => {},
      )
      await this.#firedClaim
      await Promise.all(runs)
    }
    this.#isFiring = false
  }

  /** Claims and begins jobs of the kinds that there is room for. */
  async #claim(
    limit: number,
    ids: readonly string[] | undefined,
    begin: (claim: Claim) => void,
  ): Promise<{ more: boolean }> {
    const rooms = this.#roomsOfLimited(limit)
    const kinds = rooms.values().every((room) => room > 0)
      ? this.#kinds
      : without(this.#kinds, rooms)
    if (kinds.size === 0) return { more: false }
    const { store, timing } = this.#options
    for (const [kind, room] of rooms) add(this.#promised, kind, room)
    try {
      const roomFor = (kind: string) => rooms.get(kind) ?? limit
      const { claims, more } = await store.claim({
        worker: this.name,
        kinds,
        roomFor,
        limit,
        leaseMs: timing.leaseMs,
        ids,
      })
      claims.forEach(begin)
      return { more }
    } finally {
      for (const [kind, room] of rooms) add(this.#promised, kind, -room)
    }
  }

  /** How many more there may be of each kind that has a concurrency of its own. */
  #roomsOfLimited(limit: number): Map<string, number> {
    const rooms = new Map<string, number>()
    for (const { name, concurrency } of this.#limited) {
      const taken = (this.#atWork.get(name) ?? 0) + (this.#promised.get(name) ?? 0)
      rooms.set(name, Math.min(limit, concurrency - taken))
    }
    return rooms
  }

  /** Ends what this process runs of a job, if it does. */
  abort(id: string): void {
    for (const run of this.#runs) if (run.claim.id === id) run.abort(CANCELLED)
  }

  /**
   * Lets the jobs that are nearly done finish, tells the others to end, and gives back what is
   * still held, so that another process need not wait for the leases to run out. Not after a crash:
   * see `Jobs.stop`.
   */
  async stop(crashed: boolean): Promise<void> {
    this.#stopping = true
    this.#sparing = !crashed
    await this.#firedClaim
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
    if (this.#sparing)
      settlements.push(
        ...held.map((claim): Settlement => ({ claim, outcome: { state: 'queued' } })),
      )
    if (settlements.length > 0)
      this.#options.onChange(await this.#options.store.settle(settlements))
  }

  /** Resolves when the job has ended here, and that is written. */
  #begin(claim: Claim, isFired = false): Promise<void> {
    const run = new Run(claim, this.#handlers.get(claim.kind) as JobHandler)
    this.#runs.add(run)
    if (isFired) this.#runsOfFired.add(run)
    else this.#working++
    add(this.#atWork, claim.kind, 1)
    this.#options.onChange([
      toChange({ ...claim, state: 'running', progress: 0, note: null, error: null }),
    ])
    return this.#follow(run)
  }

  /**
   * From the handler's start until its end is written and it has really ended, which leaves room
   * for the next.
   */
  async #follow(run: Run): Promise<void> {
    const { verdict, settled } = run.start()
    const left = settled.then(() => {
      if (!this.#runsOfFired.has(run)) this.#working--
      add(this.#atWork, run.claim.kind, -1)
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
    this.#runsOfFired.delete(run)
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
      this.#options.onChange([
        toChange({ ...run.claim, state: 'running', progress: fraction, note, error: null }),
      ])
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

  /** Warns of jobs in the queue that nobody here can do, once for each kind. */
  async #searchUnknown(): Promise<void> {
    if (performance.now() - this.#searchedAt < SEARCH_EVERY_MS) return
    this.#searchedAt = performance.now()
    for (const kind of await this.#options.store.otherKinds(this.#kinds)) {
      if (this.#unknown.has(kind)) continue
      this.#unknown.add(kind)
      this.#options.log.warn(
        { kind },
        'No handler for this kind of job here: leaving it to other processes',
      )
    }
  }

  #log({ claim: { id, kind, attempt, requestId } }: Run, { state }: Outcome, error: unknown): void {
    const next =
      state === 'failed' ? 'A job failed for good' : 'A job failed: it will be tried again'
    this.#options.log.warn({ err: error, job: id, kind, attempt, requestId }, next)
  }
}

/**
 * Whatever a stopping service lacks is no fault of the job's: it is given back, and the attempt
 * does not count.
 */
const spared = (outcome: Outcome, error: unknown): Outcome =>
  outcome.state === 'succeeded' || !isRetryable(error) ? outcome : { state: 'queued' }

/** The kinds but those that there is no room for. */
const without = (kinds: ReadonlySet<string>, rooms: ReadonlyMap<string, number>) =>
  new Set([...kinds].filter((kind) => (rooms.get(kind) ?? 1) > 0))

function add(counts: Map<string, number>, kind: string, count: number): void {
  counts.set(kind, (counts.get(kind) ?? 0) + count)
}

const claimsOf = (runs: Run[]) => runs.map(({ claim }) => claim)
