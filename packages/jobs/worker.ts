import { performance } from 'node:perf_hooks'
import { setImmediate as immediate, setTimeout as sleep } from 'node:timers/promises'
import { Claims } from './claims.ts'
import { toJson } from './enqueue.ts'
import { JobError } from './errors.ts'
import {
  findDuplicate,
  hasLimits,
  type JobChange,
  type JobContext,
  type JobHandler,
  type JobObserver,
  withFailureHandlers,
} from './job.ts'
import { type Log, Loop, type Timing } from './loop.ts'
import { findPaused, RENEW_QUEUES_MS, renewQueues } from './queues.ts'
import {
  type AttemptResult,
  type Claim,
  type FinishedAttempt,
  type JobStore,
  toClaims,
} from './store.ts'

const FINISH_BATCH = 100
/** Jobs are claimed while results are written. */
const MAX_CLAIMS_PER_PLACE = 2
const SEARCH_EVERY_MS = 10_000
const MAX_RESULT_BYTES = 4 * 1024 * 1024
const MAX_BACKOFF_MS = 600_000
const MAX_NOTE_CHARACTERS = 200
const MAX_ERROR_CHARACTERS = 1_000
const MAX_DETAIL_CHARACTERS = 4_000
/** After which the attempt of an aborted handler fails. */
const UNRESPONSIVE_MS = 1_000
const MAX_TIMER_MS = 2 ** 31 - 1

const CANCELLED = new JobError('cancelled', 'The job was cancelled')
const TAKEN_OVER = new JobError('cancelled', 'Another process has taken the job over')
const STOPPING = new JobError('unavailable', 'The service is stopping')

export interface WorkerOptions {
  store: JobStore
  log: Log
  name: string
  queues: Readonly<Record<string, number>>
  timing: Timing
  handlers: readonly JobHandler[]
  publicMessage(error: unknown): string
  around(attempt: JobContext, run: () => Promise<unknown>): Promise<unknown>
  onChange(changes: readonly JobChange[]): void
  /** Called with another process's change. */
  onNotice(change: JobChange): void
  observer?: JobObserver | undefined
}

/** Claims and runs jobs in three loops. */
export class Worker {
  readonly name: string
  readonly #options: WorkerOptions
  readonly #handlers: ReadonlyMap<string, JobHandler>
  readonly #places: ReadonlyMap<string, number>
  readonly #claims: Claims
  /** Of the handlers whose queues have places here. */
  readonly runKinds: readonly string[]
  /** By kind, also of those that it does not claim. */
  readonly queueOf: ReadonlyMap<string, string>
  readonly #attempts = new Set<Attempt>()
  /** The newest job of each schedule. */
  readonly #scheduled = new Map<string, { id: string; queue: string }>()
  readonly #namedKinds = new Set<string>()
  readonly #claimLoop: Loop
  readonly #finishLoop: Loop
  readonly #watchLoop: Loop
  #paused: ReadonlySet<string> = new Set()
  #queuesReadAt = Number.NEGATIVE_INFINITY
  #queuesRenewedAt = Number.NEGATIVE_INFINITY
  #searchedAt = Number.NEGATIVE_INFINITY
  #renewedAt = 0
  #releasesOnStop = false

  constructor(options: WorkerOptions) {
    const { store, log, name, timing, queues } = options
    this.#options = options
    this.name = name
    const twice = findDuplicate(options.handlers.map(({ job }) => job.name))
    if (twice) throw new Error(`Two handlers for one kind of job: ${twice}`)
    const handlers = withFailureHandlers(options.handlers)
    this.#handlers = new Map(handlers.map((handler) => [handler.job.name, handler]))
    const all = new Map(Object.entries(queues))
    const placesOf = (queue: string) => all.get(queue) ?? all.get('*') ?? 0
    const names = new Set(handlers.map(({ job }) => job.queue))
    this.#places = new Map(
      [...names]
        .map((queue) => [queue, placesOf(queue)] as const)
        .filter(([, places]) => places > 0),
    )
    this.queueOf = new Map(handlers.map(({ job }) => [job.name, job.queue]))
    const run = new Map([...this.#handlers].filter(([, { job }]) => this.#places.has(job.queue)))
    this.runKinds = [...run.keys()]
    this.#claims = new Claims({
      store,
      worker: this.name,
      handlers: run,
      leaseMs: timing.leaseMs,
      pollMs: timing.pollMs,
    })
    const loop = (name: string, restMs: number, runOnce: () => Promise<boolean>) =>
      new Loop({ name, log, restMs, maxBackoffMs: timing.maxBackoffMs, runOnce })
    this.#claimLoop = loop('claim', timing.pollMs, () => this.claimOnce())
    this.#finishLoop = loop('finish', timing.pollMs, () => this.finishOnce())
    this.#watchLoop = loop('watch', timing.watchMs, () => this.watchOnce())
  }

  get running(): number {
    return this.#count(({ ended }) => !ended)
  }

  get kinds(): Iterable<string> {
    return this.#handlers.keys()
  }

  start(): void {
    this.#warnOfOthers()
    if (this.#places.size === 0) return
    for (const loop of [this.#claimLoop, this.#finishLoop, this.#watchLoop]) loop.start()
  }

  wake(): void {
    this.#claims.expire()
    this.#claimLoop.wake()
  }

  /** One more place keeps a schedule's job from waiting for long jobs. */
  claimScheduled(schedule: string, id: string, kind: string): void {
    const job = this.#handlers.get(kind)?.job
    if (job && this.runs(job.queue) && !hasLimits(job))
      this.#scheduled.set(schedule, { id, queue: job.queue })
    this.wake()
  }

  runs(queue: string): boolean {
    return this.#places.has(queue)
  }

  abort(ids: ReadonlySet<string>): void {
    for (const { claim, controller } of this.#attempts)
      if (ids.has(claim.id)) controller.abort(CANCELLED)
  }

  stopClaiming(): void {
    void this.#claimLoop.stop()
  }

  /** Lets jobs finish, then aborts and releases them. */
  async stop(crashed: boolean): Promise<void> {
    await this.#claimLoop.stop()
    this.#releasesOnStop = !crashed
    const { graceMs } = this.#options.timing
    await this.#drain(graceMs)
    for (const { controller } of this.#attempts) controller.abort(STOPPING)
    await this.#drain(graceMs)
    await Promise.all([this.#watchLoop.stop(), this.#finishLoop.stop()])
    await this.#release()
  }

  async claimOnce(): Promise<boolean> {
    // Attempts that end together share one claim.
    await immediate()
    await this.#readQueues()
    await this.#claimScheduled()
    const rooms = this.#rooms
    if (rooms.size === 0) return false
    const { claims, more, retryMs } = await this.#claims.claim(rooms)
    this.#begin(claims)
    if (retryMs !== undefined && retryMs < this.#options.timing.pollMs)
      setTimeout(() => this.#claimLoop.wake(), retryMs + 1).unref()
    if (!more) await this.#warnOfUnknownKinds()
    return more && this.#rooms.size > 0
  }

  async finishOnce(): Promise<boolean> {
    await immediate()
    const batch = [...this.#attempts].filter(isUnwritten).slice(0, FINISH_BATCH)
    if (batch.length === 0) return false
    await this.#finish(batch)
    for (const attempt of batch) {
      attempt.isWritten = true
      this.#free(attempt)
    }
    return batch.length === FINISH_BATCH
  }

  /** Renews leases, writes progress, and aborts attempts that lost their claims. */
  async watchOnce(): Promise<boolean> {
    const attempts = [...this.#attempts]
    if (attempts.length === 0) return false
    await this.#renew(attempts)
    for (const attempt of attempts) await this.#writeProgress(attempt)
    await this.#abortLost(attempts)
    return false
  }

  get #rooms(): ReadonlyMap<string, number> {
    const counts = new Map(
      [...this.#places.keys()].map((queue) => [queue, { running: 0, claims: 0 }]),
    )
    for (const { handler, isExtra, ended } of this.#attempts) {
      const count = counts.get(handler.job.queue)
      if (!count || isExtra) continue
      count.claims++
      if (!ended) count.running++
    }
    const rooms = [...counts].map(([queue, { running, claims }]) => {
      const places = this.#paused.has(queue) ? 0 : (this.#places.get(queue) as number)
      const room = Math.min(places - running, MAX_CLAIMS_PER_PLACE * places - claims)
      return [queue, room] as const
    })
    return new Map(rooms.filter(([, room]) => room > 0))
  }

  #count(matches: (attempt: Attempt) => boolean): number {
    return [...this.#attempts].filter(matches).length
  }

  async #readQueues(): Promise<void> {
    const { store, timing } = this.#options
    const now = performance.now()
    if (now - this.#queuesReadAt < timing.pollMs) return
    this.#paused = await findPaused(store.open(false))
    if (now - this.#queuesRenewedAt >= RENEW_QUEUES_MS) {
      await renewQueues(store.open(false), this.#places.keys())
      this.#queuesRenewedAt = now
    }
    this.#queuesReadAt = now
  }

  /** Jobs of a paused queue wait with the others. */
  async #claimScheduled(): Promise<void> {
    for (const [schedule, { id, queue }] of this.#scheduled) {
      if (this.#count(({ isExtra }) => isExtra) > 0) return
      this.#scheduled.delete(schedule)
      if (!this.#paused.has(queue)) this.#begin(await this.#claims.claimNamed(id), true)
    }
  }

  #begin(claims: readonly Claim[], isExtra = false): void {
    const attempts = claims.map(
      (claim) => new Attempt(claim, this.#handlers.get(claim.kind) as JobHandler, isExtra),
    )
    for (const attempt of attempts) this.#attempts.add(attempt)
    this.#options.onChange(claims.map((claim) => toRunning(claim)))
    for (const { kind, waitMs } of claims) this.#options.observer?.started(kind, waitMs)
    for (const attempt of attempts) void this.#run(attempt)
  }

  async #run(attempt: Attempt): Promise<void> {
    const startedAt = performance.now()
    const { value, ended } = attempt.start(this.#options.around)
    void ended.then(() => this.#free(attempt))
    attempt.result = await value.then(
      (json): AttemptResult => ({ state: 'succeeded', result: json }),
      (error: unknown) => this.#toFailure(attempt, error),
    )
    this.#options.observer?.ended(attempt.claim.kind, performance.now() - startedAt)
    this.#finishLoop.wake()
  }

  /** Frees the claim once the handler has ended and its result is written. */
  #free(attempt: Attempt): void {
    if (attempt.ended && attempt.isWritten) this.#attempts.delete(attempt)
    if (attempt.isWritten) this.#claims.release(attempt.claim.kind)
    this.#claimLoop.wake()
  }

  #toFailure({ claim, handler, controller }: Attempt, error: unknown): AttemptResult {
    const { id, kind, attempt, maxAttempts, requestId } = claim
    const isRetryable = (error as { retryable?: unknown } | undefined)?.retryable !== false
    const isLast = attempt >= maxAttempts || !isRetryable
    const text = isLast ? 'Job failed' : 'Job attempt failed, retrying'
    const fields = { err: error, job: id, kind, attempt, requestId }
    if (!controller.signal.aborted) this.#options.log.warn(fields, text)
    // Shutdown may be the cause.
    if (this.#releasesOnStop && isRetryable) return { state: 'queued' }
    const message = this.#options.publicMessage(error).slice(0, MAX_ERROR_CHARACTERS)
    const failure = { error: message, detail: toDetail(error) }
    if (isLast) return { state: 'failed', ...failure }
    const maxMs = Math.min(handler.job.backoffMs * 2 ** (attempt - 1), MAX_BACKOFF_MS)
    return { state: 'scheduled', delayMs: Math.random() * maxMs, ...failure }
  }

  async #renew(attempts: readonly Attempt[]): Promise<void> {
    const { store, timing } = this.#options
    const startedAt = performance.now()
    if (startedAt - this.#renewedAt < timing.heartbeatMs) return
    await store.renew(toClaims(attempts), timing.leaseMs)
    this.#renewedAt = startedAt
  }

  async #writeProgress(attempt: Attempt): Promise<void> {
    const { progress } = attempt
    attempt.progress = undefined
    if (!progress || attempt.isOver) return
    const { fraction, note } = progress
    const isValid = await this.#options.store.writeProgress(attempt.claim, fraction, note)
    if (isValid && !attempt.isOver)
      this.#options.onChange([toRunning(attempt.claim, fraction, note)])
  }

  /** Claims are lost by cancellation, or to another process. */
  async #abortLost(attempts: readonly Attempt[]): Promise<void> {
    const lost = await this.#options.store.findLost(toClaims(attempts))
    for (const attempt of attempts) {
      if (attempt.isOver || !lost.has(attempt.claim)) continue
      const change = lost.get(attempt.claim)
      const isTaken = change?.state === 'running' || change?.state === 'queued'
      attempt.controller.abort(isTaken ? TAKEN_OVER : CANCELLED)
      if (change) this.#options.onNotice(change)
    }
  }

  #warnOfOthers(): void {
    const { log, queues } = this.#options
    const known = new Set(this.queueOf.values())
    for (const queue of Object.keys(queues))
      if (queue !== '*' && !known.has(queue))
        log.warn({ queue }, 'No job is declared with this queue')
    const left = [...known].filter((queue) => !this.#places.has(queue))
    if (this.#places.size > 0 && left.length > 0)
      log.info({ queues: left }, 'Leaving the jobs of these queues to other processes')
  }

  async #warnOfUnknownKinds(): Promise<void> {
    if (performance.now() - this.#searchedAt < SEARCH_EVERY_MS) return
    this.#searchedAt = performance.now()
    for (const kind of await this.#claims.findOtherKinds()) {
      if (this.#handlers.has(kind) || this.#namedKinds.has(kind)) continue
      this.#namedKinds.add(kind)
      const text = 'No handler for this kind of job here: leaving it to other processes'
      this.#options.log.warn({ kind }, text)
    }
  }

  async #drain(timeoutMs: number): Promise<void> {
    const deadline = performance.now() + timeoutMs
    while (this.#attempts.size > 0 && performance.now() < deadline) await sleep(10)
  }

  async #release(): Promise<void> {
    if (this.#releasesOnStop)
      for (const attempt of this.#attempts) attempt.result ??= { state: 'queued' }
    const finished = [...this.#attempts].filter(isUnwritten)
    if (finished.length > 0) await this.#finish(finished)
  }

  async #finish(attempts: readonly FinishedAttempt[]): Promise<void> {
    const { store, observer, onChange } = this.#options
    const changes = await store.finish(attempts)
    onChange(changes)
    for (const { kind, state } of changes) if (state === 'failed') observer?.failed(kind)
  }
}

class Attempt {
  readonly claim: Claim
  readonly handler: JobHandler
  /** Whether it has the extra place of schedules. */
  readonly isExtra: boolean
  /** An unresponsive handler keeps its place until then. */
  ended = false
  result: AttemptResult | undefined
  isWritten = false
  readonly controller = new AbortController()
  progress: { fraction: number; note: string | null } | undefined

  constructor(claim: Claim, handler: JobHandler, isExtra: boolean) {
    this.claim = claim
    this.handler = handler
    this.isExtra = isExtra
  }

  get isOver(): boolean {
    return this.result !== undefined || this.controller.signal.aborted
  }

  /** `value` is the result as JSON, or rejects with the failure. */
  start(around: WorkerOptions['around']): { value: Promise<string>; ended: Promise<void> } {
    const { job, run } = this.handler
    const timer = startTimer(job.timeoutMs, () => {
      const text = `It was not done within ${job.timeoutMs} ms`
      this.controller.abort(new JobError('deadline_exceeded', text))
    })
    const context = this.#context()
    const returned = Promise.try(() =>
      around(context, async () => run(JSON.parse(this.claim.input), context)),
    )
    const end = () => {
      clearTimeout(timer)
      this.ended = true
    }
    const ended = returned.then(end, end)
    const value = Promise.race([returned, this.#rejectIfUnresponsive(ended)]).then((result) =>
      toJson(result, `The result of ${job.name}`, MAX_RESULT_BYTES),
    )
    return { value, ended }
  }

  async #rejectIfUnresponsive(ended: Promise<void>): Promise<never> {
    const { signal } = this.controller
    await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
    await Promise.race([ended, sleep(UNRESPONSIVE_MS)])
    throw signal.reason
  }

  #context(): JobContext {
    const { id, kind, requestId, subject, trace, attempt } = this.claim
    const progress = (fraction: number, text?: string) => {
      const note = text?.slice(0, MAX_NOTE_CHARACTERS) ?? null
      this.progress = { fraction: Math.min(Math.max(fraction, 0), 1) || 0, note }
    }
    const { signal } = this.controller
    return { id, kind, requestId, subject, trace, attempt, signal, progress }
  }
}

const isUnwritten = (attempt: Attempt): attempt is Attempt & FinishedAttempt =>
  attempt.result !== undefined && !attempt.isWritten

/** Fires after 25 days at most, as Node's timers do. */
const startTimer = (ms: number, act: () => void) =>
  ms === Number.POSITIVE_INFINITY ? undefined : setTimeout(act, Math.min(ms, MAX_TIMER_MS))

function toRunning({ id, kind, attempt, error }: Claim, progress = 0, note: string | null = null) {
  return { id, kind, state: 'running' as const, progress, note, attempt, error }
}

function toDetail(error: unknown): string {
  const cause = error instanceof Error && error.cause ? `; ${String(error.cause)}` : ''
  return `${String(error)}${cause}`.slice(0, MAX_DETAIL_CHARACTERS)
}
