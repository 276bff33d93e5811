import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Call, type Entry, MAX_TIMER_MS, MapEntry, now, type Outcome } from './call.ts'
import { OverloadedError, PoolClosedError, TaskError } from './errors.ts'
import {
  CANCEL_GRACE_MS,
  DRAIN_SHARE,
  LEAST_TIME_WEIGHT,
  MAX_AHEAD_MS,
  MAX_LOST_WORKERS,
  MAX_RESEND_MS,
  MAX_RESTART_DELAY_MS,
  maxWaitMs,
  REMOTE_CHUNK_MS,
  RESTART_DELAY_MS,
  RUN_TIME_WEIGHT,
  STARVED_MS,
  SWEEP_INTERVAL_MS,
} from './policy.ts'
import type { DoneMessage, ProgressMessage } from './protocol.ts'
import { Queue } from './queue.ts'
import type { Remote, RemoteAnswer } from './remote.ts'
import type { PoolWorker, WorkerEvents, WorkerState } from './worker.ts'

export interface Limits {
  /** After this, idle workers beyond the minimum end. */
  idleMs: number
  /** Per priority, to bound memory. */
  maxQueued: number
  /** Once aborted, refuses new work; accepted work has 90 % of `drainMs` to end. */
  stopping?: AbortSignal
  drainMs?: number
  onTiming?: (timing: Timing) => void
  /** When a worker ends by itself, by code of `task`. */
  onCrash?: (error: Error, worker: string, task?: string) => void
}

interface SchedulerOptions extends Limits {
  start: (number: number, events: WorkerEvents) => PoolWorker
  minWorkers: number
  maxWorkers: number
  batchWorkers: number
  remote?: Remote | undefined
}

export interface Timing {
  task: string
  thread: string
  outcome: Outcome
  items: number
  /** Milliseconds since the epoch. */
  queuedAt: number
  startedAt: number
  endedAt: number
  queuedMs: number
  runMs: number
  requestId: string | undefined
  trace: string | undefined
}

export type ItemCounts = Map<string, { queued: number; running: number }>

let lastId = 0

/**
 * The workers of one kind and their queue. Short calls are sent ahead, so that workers do not wait
 * for the event loop; those not begun can be revoked.
 */
export class Scheduler implements AsyncDisposable {
  readonly #options: SchedulerOptions
  readonly #queue = new Queue()
  readonly runTimes = new RunTimes()
  readonly #workers = new Set<PoolWorker>()
  /** A replacement takes over the number. */
  readonly #numbers = new Map<PoolWorker, number>()
  /** The one that was busy last is at the end, and gets the next call. */
  readonly #idle: PoolWorker[] = []
  /** What other processes do; the controllers stop it. */
  readonly #remoteCalls = new Map<Call, AbortController>()
  readonly #closing = new AbortController()
  #starting = 0
  #isDispatching = false
  #extraMapCheck: NodeJS.Immediate | undefined
  readonly #idleTimer: NodeJS.Timeout
  #sweepTimer: NodeJS.Timeout | undefined
  #sweepAt = Number.POSITIVE_INFINITY

  constructor(options: SchedulerOptions) {
    this.#options = options
    this.#idleTimer = setInterval(
      () => this.#endIdle(),
      Math.min(options.idleMs, MAX_TIMER_MS),
    ).unref()
    options.stopping?.addEventListener('abort', () => this.#startDrain(), { once: true })
  }

  async startAll(): Promise<void> {
    await Promise.all(Array.from({ length: this.#options.maxWorkers }, () => this.#start()))
  }

  get queued() {
    return this.#queue.size
  }

  get running() {
    return this.#workers.size - this.#idle.length
  }

  get remote(): Remote | undefined {
    return this.#options.remote
  }

  states(): WorkerState[] {
    return Array.from(this.#workers, (worker) => worker.describe())
  }

  measureMemory(): void {
    for (const worker of this.#workers) void worker.measureMemory()
  }

  countItems(counts: ItemCounts): void {
    const maps = new Set<MapEntry>()
    for (const priority of ['interactive', 'batch'] as const)
      for (const map of this.#queue.of(priority).activeMaps) maps.add(map)
    for (const entry of this.#queue) {
      if (entry instanceof MapEntry) maps.add(entry)
      else addItems(counts, entry, entry.items, 0)
    }
    for (const { calls } of this.#workers) {
      for (const call of calls) {
        const running = call === calls[0] ? 1 : 0
        addItems(counts, call, call.items - running, running)
        if (call.map) maps.add(call.map)
      }
    }
    for (const call of this.#remoteCalls.keys()) {
      addItems(counts, call, call.items - 1, 1)
      if (call.map) maps.add(call.map)
    }
    for (const map of maps) addItems(counts, map, map.countUnsent(), 0)
  }

  /**
   * Calls `map.begin` at a map's turn.
   *
   * @throws OverloadedError when the queue is full; PoolClosedError; the signal's reason.
   */
  add(entry: Entry): void {
    entry.options.signal?.throwIfAborted()
    this.#admit(entry)
    entry.watchLimits((outcome, reason) => this.stop(entry, outcome, reason))
    if (entry instanceof MapEntry || !this.#isWorthSending(entry)) this.#enqueue(entry)
    else void this.#runRemotely(entry).then((answer) => this.#answerRun(entry, answer))
  }

  addChunk(call: Call): void {
    if (this.#isClosing) throw new PoolClosedError()
    if (call.map) this.#queue.of(call.priority).activeMaps.add(call.map)
    this.#enqueue(call)
  }

  /** Serves no items if they must be served here. */
  addRemoteChunk(call: Call): void {
    if (this.#isClosing) throw new PoolClosedError()
    void this.#runRemotely(call).then((answer) => this.#answerChunk(call, answer))
  }

  pauseMap(map: MapEntry): void {
    if (this.#queue.of(map.priority).activeMaps.delete(map)) this.#dispatch()
  }

  /** @param runMs total run time, if the map succeeded. */
  endMap(map: MapEntry, runMs: number | undefined): void {
    if (runMs !== undefined) this.runTimes.learn(map, runMs)
    if (!this.#delete(map)) this.pauseMap(map)
  }

  stop(entry: Entry, outcome: Outcome, reason: unknown): void {
    if (entry.outcome) return
    entry.fail(outcome, reason)
    if (this.#delete(entry) || entry instanceof MapEntry) return
    this.#remoteCalls.get(entry)?.abort()
    const worker = [...this.#workers].find(({ calls }) => calls.includes(entry))
    if (!worker) return
    if (worker.revoke(entry)) this.#unassign(entry, worker)
    else this.#cancel(entry, worker)
    this.#dispatch()
  }

  async [Symbol.asyncDispose]() {
    this.#closing.abort()
    clearInterval(this.#idleTimer)
    clearTimeout(this.#sweepTimer)
    this.#refuseAll()
    this.#stopRemoteCalls()
    for (const worker of this.#workers) {
      for (const call of worker.calls) call.fail('cancelled', new PoolClosedError())
      this.#reportInterrupted(worker)
    }
    await Promise.all([...this.#workers].map((worker) => worker.terminate()))
  }

  get #isClosing() {
    return this.#closing.signal.aborted
  }

  #admit(entry: Entry) {
    if (this.#isClosing || this.#options.stopping?.aborted) throw new PoolClosedError()
    if (this.#queue.of(entry.priority).size >= this.#options.maxQueued)
      throw new OverloadedError(this.#expectedWaitMs(entry))
    const leastMs = this.runTimes.find(entry)?.leastMs ?? 0
    const onOneWorkerMs = entry instanceof MapEntry ? leastMs / this.#options.maxWorkers : leastMs
    entry.latestStartAt = entry.queuedAt + maxWaitMs(entry.options, onOneWorkerMs)
  }

  #delete(entry: Entry): boolean {
    return this.#queue.of(entry.priority).delete(entry)
  }

  #enqueue(entry: Entry) {
    entry.estimateMs = this.runTimes.guessMs(entry)
    this.#queue.push(entry)
    this.#dispatch()
    const isWaiting = entry.list !== undefined
    if (isWaiting && entry.latestStartAt < this.#sweepAt) this.#sweepLater(entry.latestStartAt)
  }

  #expectedWaitMs({ priority }: Entry): number {
    const time = performance.now()
    let aheadMs = this.#queue.waitMs(priority)
    for (const { expectedMs, since } of this.#workers)
      aheadMs += Math.max(0, expectedMs - (time - since))
    return aheadMs / this.#options.maxWorkers
  }

  #dispatch() {
    if (this.#isDispatching) return
    this.#isDispatching = true
    while (this.#dispatchNext());
    this.#isDispatching = false
    if (this.#queue.size === 0) this.#balance()
    else if (this.#idle.length > 0) this.#beginExtraMapLater()
    this.#grow()
  }

  #dispatchNext(): boolean {
    const idle = this.#idle.at(-1)
    const entry = this.#queue.peek(!idle || this.#mayServeBatch())
    if (entry instanceof MapEntry) return idle !== undefined && this.#beginMap(entry)
    const worker = entry && (idle ?? this.#findSoonIdle(entry))
    if (!worker) return false
    this.#queue.of(entry.priority).take(entry)
    this.#send(entry, worker)
    return true
  }

  #beginMap(map: MapEntry): true {
    this.#queue.of(map.priority).take(map)
    map.begin()
    return true
  }

  /** Whether another process would probably begin the run sooner. */
  #isWorthSending(call: Call): boolean {
    const { remote } = this.#options
    if (!remote || !call.options.distributed) return false
    const mayRunHere = call.priority !== 'batch' || this.#mayServeBatch()
    if (this.#idle.length > 0 && mayRunHere) return false
    const expectedMs = this.runTimes.measuredMs(call) ?? REMOTE_CHUNK_MS
    return expectedMs >= REMOTE_CHUNK_MS && remote.places(call.task) > 0
  }

  /** Undefined if the call has ended. */
  async #runRemotely(call: Call): Promise<RemoteAnswer | undefined> {
    const { task, mode, input } = call
    const { requestId, trace, onProgress } = call.options
    const controller = new AbortController()
    this.#remoteCalls.set(call, controller)
    call.latestStartAt = Number.POSITIVE_INFINITY
    const onRemoteProgress = (fraction: number) => {
      if (!call.outcome) onProgress?.(fraction)
    }
    try {
      const work = { task, mode, input, requestId, trace }
      const { signal } = controller
      const answer = await this.remote?.run(work, { signal, onProgress: onRemoteProgress })
      if (answer?.outcome === 'failed')
        call.fail('failed', new TaskError(task, answer.error, answer.item))
      return call.outcome ? undefined : answer
    } catch (error) {
      call.fail('failed', error)
      return undefined
    } finally {
      this.#remoteCalls.delete(call)
    }
  }

  #answerRun(call: Call, answer: RemoteAnswer | undefined) {
    if (!answer) return
    if (answer.outcome === 'done') call.succeed(answer.output)
    else if (this.#isClosing) call.fail('cancelled', new PoolClosedError())
    else this.#enqueue(call)
  }

  #answerChunk(call: Call, answer: RemoteAnswer | undefined) {
    if (!answer) return
    const unserved = { output: [], items: 0, runMs: 0 }
    if (answer.outcome === 'lost') call.succeed(unserved)
    else if (answer.outcome === 'too-large') call.succeed({ ...unserved, fits: answer.fits })
    else if (answer.outcome === 'done') {
      const { output, items, runMs } = answer
      call.succeed({ output, items, runMs })
      this.runTimes.learn(call, runMs / items)
    }
  }

  #stopRemoteCalls() {
    for (const call of this.#remoteCalls.keys()) this.stop(call, 'cancelled', new PoolClosedError())
  }

  #mayServeBatch(): boolean {
    let serving = 0
    for (const { calls } of this.#workers) if (calls[0]?.priority === 'batch') serving++
    return serving < this.#options.batchWorkers
  }

  #findSoonIdle(call: Call): PoolWorker | undefined {
    const estimateMs = this.runTimes.measuredMs(call) ?? Number.POSITIVE_INFINITY
    if (estimateMs > MAX_AHEAD_MS || call.options.transfer) return undefined
    const time = performance.now()
    let soonest: PoolWorker | undefined
    for (const worker of this.#workers) {
      const { calls, state, capacity, expectedMs } = worker
      if (state !== 'serving' || expectedMs > MAX_AHEAD_MS || calls.length >= capacity) continue
      if (worker.isOverdue(time) || calls[0]?.priority !== call.priority) continue
      if (calls[0].estimateMs === undefined) continue
      if (!soonest || expectedMs < soonest.expectedMs) soonest = worker
    }
    return soonest
  }

  #send(call: Call, worker: PoolWorker) {
    const { isIdle } = worker
    const sentAt = performance.now()
    lastId = (lastId + 1) | 0 || 1
    call.id = lastId
    try {
      worker.send(call)
    } catch (error) {
      return call.fail('failed', error)
    }
    // A busy worker has other reasons to begin it late.
    if (isIdle) call.sendMs = performance.now() - sentAt
    // Once sent, a call is not refused for waiting, even if revoked.
    call.latestStartAt = Number.POSITIVE_INFINITY
    call.estimateMs = this.runTimes.measuredMs(call)
    if (isIdle) this.#idle.splice(this.#idle.indexOf(worker), 1)
    worker.assign(call)
  }

  #unassign(call: Call, worker: PoolWorker) {
    worker.unassign(call)
    if (worker.isIdle) this.#idle.push(worker)
  }

  #beginExtraMapLater() {
    this.#extraMapCheck ??= setImmediate(() => {
      this.#extraMapCheck = undefined
      if (this.#idle.length === 0) return
      const map = this.#queue.peekExtraMap(this.#mayServeBatch())
      if (map) this.#beginMap(map)
    })
  }

  /** Idle workers take over half of a busy one's calls. */
  #balance() {
    for (const idle of this.#idle.toReversed()) {
      const busiest = this.#findMostLoaded()
      if (!busiest || (busiest.calls[0]?.priority === 'batch' && !this.#mayServeBatch())) return
      const half = Math.ceil(busiest.calls.length / 2)
      for (const call of this.#revoke(busiest, half)) this.#send(call, idle)
    }
  }

  #findMostLoaded(): PoolWorker | undefined {
    const starvedSince = performance.now() - STARVED_MS
    // No CPU for its only call, unless a large input is still arriving.
    const isStarved = ({ calls, since }: PoolWorker) =>
      since < starvedSince && calls[0] && calls[0].sendMs < MAX_RESEND_MS
    let most: PoolWorker | undefined
    for (const worker of this.#workers)
      if (worker.calls.length > (most?.calls.length ?? (isStarved(worker) ? 0 : 1))) most = worker
    return most
  }

  #revokeOverdue() {
    if (this.#queue.size === 0) return
    const time = performance.now()
    for (const worker of this.#workers)
      if (worker.calls.length > 1 && worker.isOverdue(time))
        this.#queue.unshift(this.#revoke(worker, worker.calls.length - 1))
  }

  #revoke(worker: PoolWorker, most = Number.POSITIVE_INFINITY): Call[] {
    const revoked: Call[] = []
    for (const call of worker.calls.toReversed()) {
      // Transferred buffers cannot be sent again.
      if (revoked.length >= most || call.options.transfer || !worker.revoke(call)) break
      this.#unassign(call, worker)
      revoked.unshift(call)
    }
    return revoked
  }

  #done(worker: PoolWorker, [id, startedAt, runMs, failed, value, served]: DoneMessage) {
    const [call] = worker.calls
    if (call?.id !== id) return
    const items = failed ? call.items : served
    if (failed)
      call.fail('failed', new TaskError(call.task, value, call.mode === 'one' ? undefined : served))
    else call.succeed(call.mode === 'one' ? value : { output: value, items, runMs })
    this.#report(call, worker, startedAt, runMs, items)
    this.runTimes.learn(call, runMs / items)
    this.#unassign(call, worker)
    if (worker.state === 'cancelling' && worker.calls.length === 0) worker.state = 'serving'
    if (worker.hasPlenty) return
    this.#revokeOverdue()
    this.#dispatch()
  }

  #progress(worker: PoolWorker, [id, fraction]: ProgressMessage) {
    const [call] = worker.calls
    if (call?.id !== id || call.outcome) return
    call.progress = fraction
    call.options.onProgress?.(fraction)
  }

  #cancel(call: Call, worker: PoolWorker) {
    this.#queue.unshift(this.#revoke(worker))
    // Another call has begun: this one's answer is on its way.
    if (worker.calls.at(-1) !== call) return
    worker.state = 'cancelling'
    worker.cancel(call)
    const terminate = () => {
      if (worker.calls[0] !== call) return
      worker.state = 'terminating'
      void worker.terminate()
    }
    // Timers fire before messages: an answer may have arrived.
    setTimeout(() => setImmediate(terminate), call.options.graceMs ?? CANCEL_GRACE_MS)
  }

  #exited(worker: PoolWorker, error: Error) {
    this.#numbers.delete(worker)
    if (this.#isClosing || !this.#workers.has(worker)) return
    this.#rescueCalls(worker, error)
    // One call, unless answers were lost.
    for (const call of worker.calls) call.fail('crashed', describeCrash(call, worker, error))
    this.#reportInterrupted(worker)
    this.#remove(worker)
    if (worker.state !== 'terminating') {
      const task = worker.exitOwner?.task ?? worker.calls[0]?.task
      this.#options.onCrash?.(error, worker.name, task)
    }
    void this.#startUntilReady()
    this.#dispatch()
  }

  /** Requeues calls not begun, except one whose receipt ended several workers. */
  #rescueCalls(worker: PoolWorker, error: Error) {
    const [first] = worker.calls
    const revoked = this.#revoke(worker)
    const mayBeCause = first !== undefined && first === revoked[0] && !worker.exitOwner
    if (mayBeCause && ++first.lostWorkers === MAX_LOST_WORKERS) {
      revoked.shift()
      first.fail('crashed', new TaskError(first.task, error))
    }
    this.#queue.unshift(revoked)
  }

  #reportInterrupted(worker: PoolWorker) {
    const [call] = worker.calls
    if (!call) return
    const startedAt = performance.timeOrigin + worker.since
    this.#report(call, worker, startedAt, performance.now() - worker.since)
  }

  #report(call: Call, worker: PoolWorker, startedAt: number, runMs: number, items = call.items) {
    this.#queue.charge(call, runMs)
    worker.busyMs += runMs
    this.#options.onTiming?.({
      task: call.task,
      thread: worker.name,
      outcome: call.outcome ?? 'crashed',
      items,
      queuedAt: call.queuedAt,
      startedAt,
      endedAt: startedAt + runMs,
      queuedMs: startedAt - call.queuedAt,
      runMs,
      requestId: call.options.requestId,
      trace: call.options.trace,
    })
  }

  #grow() {
    if (this.#idle.length > 0 || this.#workers.size + this.#starting >= this.#options.maxWorkers)
      return
    const isAnyAhead = () =>
      this.#starting === 0 && [...this.#workers].some(({ calls }) => calls.length > 1)
    if (this.#queue.size > 0 || isAnyAhead()) void this.#startUntilReady()
  }

  /** A moment without memory must not cost a worker for good. */
  async #startUntilReady() {
    this.#starting++
    for (let delayMs = RESTART_DELAY_MS; !this.#isClosing; delayMs *= 2) {
      try {
        await this.#start()
        break
      } catch (error) {
        this.#options.onCrash?.(error as Error, 'a starting worker')
        const options = { signal: this.#closing.signal }
        await sleep(Math.min(delayMs, MAX_RESTART_DELAY_MS), undefined, options).catch(() => {})
      }
    }
    this.#starting--
  }

  async #start() {
    const taken = new Set(this.#numbers.values())
    let number = 1
    while (taken.has(number)) number++
    const worker = this.#options.start(number, {
      done: (worker, message) => this.#done(worker, message),
      progress: (worker, message) => this.#progress(worker, message),
      exited: (worker, error) => this.#exited(worker, error),
    })
    this.#numbers.set(worker, number)
    await worker.untilReady().catch((error) => {
      this.#numbers.delete(worker)
      throw error
    })
    if (this.#isClosing) return worker.terminate()
    this.#workers.add(worker)
    this.#idle.push(worker)
    this.#dispatch()
  }

  #endIdle() {
    const idleSince = performance.now() - this.#options.idleMs
    for (const worker of this.#idle.filter(({ since }) => since < idleSince)) {
      if (this.#workers.size <= this.#options.minWorkers) return
      this.#remove(worker)
      void worker.terminate()
    }
  }

  #remove(worker: PoolWorker) {
    this.#workers.delete(worker)
    const index = this.#idle.indexOf(worker)
    if (index >= 0) this.#idle.splice(index, 1)
  }

  #sweepLater(at: number) {
    clearTimeout(this.#sweepTimer)
    this.#sweepAt = at
    // Node warns of negative delays.
    const delayMs = Math.max(0, Math.min(Math.ceil(at - now()), MAX_TIMER_MS))
    this.#sweepTimer = setTimeout(() => this.#sweep(), delayMs).unref()
  }

  #sweep() {
    const time = now()
    let nextAt = Number.POSITIVE_INFINITY
    for (const entry of this.#queue) {
      if (entry.latestStartAt > time) nextAt = Math.min(nextAt, entry.latestStartAt)
      else if (this.#delete(entry))
        entry.fail('cancelled', new OverloadedError(this.#expectedWaitMs(entry)))
    }
    this.#sweepLater(Math.max(nextAt, time + SWEEP_INTERVAL_MS))
  }

  #startDrain() {
    const { drainMs } = this.#options
    if (drainMs === undefined) return
    setTimeout(() => {
      this.#refuseAll()
      this.#stopRemoteCalls()
      for (const { calls } of this.#workers)
        for (const call of [...calls]) this.stop(call, 'cancelled', new PoolClosedError())
    }, drainMs * DRAIN_SHARE).unref()
  }

  #refuseAll() {
    for (const entry of this.#queue)
      if (this.#delete(entry)) entry.fail('cancelled', new PoolClosedError())
  }
}

function addItems(counts: ItemCounts, { task }: Entry, queued: number, running: number) {
  const count = counts.get(task)
  if (!count) counts.set(task, { queued, running })
  else {
    count.queued += queued
    count.running += running
  }
}

function describeCrash(call: Call, { exitOwner, item }: PoolWorker, cause: Error): TaskError {
  if (!exitOwner || exitOwner.id === call.id)
    return new TaskError(call.task, cause, call.mode === 'one' ? undefined : item)
  const what = `its thread ended, by what the task ${exitOwner.task} had left running`
  return new TaskError(call.task, new Error(`${what}: ${cause.message}`, { cause }))
}

interface RunTime {
  averageMs: number
  /** About the minimum of recent runs. */
  leastMs: number
}

class RunTimes {
  /** Those of chunks are per item: items are seldom like inputs of runs. */
  readonly #times = {
    run: new Map<string, RunTime>(),
    chunk: new Map<string, RunTime>(),
    map: new Map<string, RunTime>(),
  }
  #overallMs = 0

  find({ kind, task }: Pick<Entry, 'kind' | 'task'>): RunTime | undefined {
    return this.#times[kind].get(task)
  }

  measuredMs(entry: Entry): number | undefined {
    const time = this.find(entry)
    return time && time.averageMs * entry.items
  }

  guessMs(entry: Entry): number {
    return this.measuredMs(entry) ?? this.#overallMs * entry.items
  }

  learn({ kind, task }: Entry, newest: number): void {
    if (kind !== 'map') this.#overallMs += RUN_TIME_WEIGHT * (newest - this.#overallMs)
    const time = this.#times[kind].get(task)
    if (!time) {
      this.#times[kind].set(task, { averageMs: newest, leastMs: newest })
      return
    }
    time.averageMs += RUN_TIME_WEIGHT * (newest - time.averageMs)
    // Inputs may differ: longer runs raise it slowly.
    time.leastMs = Math.min(newest, time.leastMs + LEAST_TIME_WEIGHT * (newest - time.leastMs))
  }
}
