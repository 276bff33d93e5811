import { performance } from 'node:perf_hooks'
import { DRAIN_SHARE, maxWaitMs } from './admission.ts'
import type { Call, Outcome } from './call.ts'
import { Crew, type CrewOptions } from './crew.ts'
import { type Entry, MapEntry, type Priority } from './entry.ts'
import { OverloadedError, PoolClosedError, TaskError } from './errors.ts'
import { watchLimits } from './limits.ts'
import type { Member } from './member.ts'
import type { DoneMessage, ProgressMessage } from './protocol.ts'
import { Queue } from './queue.ts'
import { RunTimes } from './run-times.ts'
import { MAX_TIMER_MS } from './timers.ts'
import { type Ended, type Timing, timingOf } from './timing.ts'

/** What a cancelled task gets to end by itself before its executor is terminated. */
const CANCEL_GRACE_MS = 100
/**
 * A call that ended so many executors before they began it was too much for them to receive: it
 * fails.
 */
const MAX_LOSSES = 2
/** How often the queue is looked through at most for what has waited too long. */
const SWEEP_EVERY_MS = 20

export interface SchedulerOptions extends CrewOptions {
  /** How many entries of each priority may wait. */
  maxQueued: number
  /** When it aborts, nothing new is taken on: what was accepted is served. */
  stopping?: AbortSignal | undefined
  /** How long that may take. */
  drainMs?: number | undefined
  onTiming?: ((timing: Timing) => void) | undefined
}

let lastId = 0

/**
 * Executors (worker threads, or child processes) and the queue before them. What is taken on, and
 * for how long it may wait, is in `admission.ts`; whose turn it is, in `queue.ts`.
 *
 * Short calls are sent ahead to executors that are busy, so that none of them waits for the event
 * loop between two calls. What was sent and not begun can be taken back (`Executor.recall`), so
 * that no call is ever stuck behind another: it goes to an executor that is idle, and survives the
 * end of the one that had it.
 */
export class Scheduler implements AsyncDisposable {
  readonly #options: SchedulerOptions
  readonly #queue = new Queue()
  readonly #runTimes = new RunTimes()
  readonly #crew: Crew
  #isDispatching = false
  #extra: NodeJS.Immediate | undefined
  #sweepTimer: NodeJS.Timeout | undefined
  /** When the queue is looked through next; on the clock of `Entry.queuedAt`. */
  #sweepAt = Number.POSITIVE_INFINITY
  #drainTimer: NodeJS.Timeout | undefined

  constructor(options: SchedulerOptions) {
    this.#options = options
    this.#crew = new Crew(options, {
      joined: () => this.#dispatch(),
      done: (member, message) => this.#done(member, message),
      progress: (member, message) => this.#progress(member, message),
      exited: (member, error) => this.#exited(member, error),
    })
    options.stopping?.addEventListener('abort', () => this.#startDrain(), { once: true })
  }

  /**
   * Starts all executors, so that no call pays for it. @throws Error when one cannot load its
   * tasks.
   */
  warmUp(): Promise<void> {
    return this.#crew.startAll()
  }

  /** Calls that wait for an executor. */
  get queued() {
    return this.#queue.size
  }

  /** Executors that are busy. */
  get running() {
    return this.#crew.busy
  }

  /** The executors that there are, and the task that each of them runs. */
  states(): { name: string; task: string | null }[] {
    return Array.from(this.#crew, ({ executor, calls }) => ({
      name: executor.name,
      task: calls[0]?.task ?? null,
    }))
  }

  /** How long an input of the task took in the past; undefined if it never ran in that mode. */
  msPerItem(task: string, mode: Call['mode']): number | undefined {
    return this.#runTimes.msPerItem(task, mode)
  }

  /**
   * Takes a call on, and settles it in the end: with `overloaded` when it has waited too long.
   *
   * @throws AppError `overloaded` when thousands wait; `unavailable` while stopping; the signal's
   * reason.
   */
  add(call: Call): void {
    call.options.signal?.throwIfAborted()
    this.#admit(call)
    call.release = watchLimits(
      call.options,
      () => `The task ${call.task}`,
      (outcome, reason) => this.stop(call, outcome, reason),
    )
    this.#enqueue(call)
  }

  /**
   * Takes a map on: `entry.begin` is called when it is its turn, or `entry.refuse` when it has
   * waited too long. Until `leave` is called, its chunks are added by `addChunk`.
   *
   * @throws AppError as `add` does.
   */
  enter(entry: MapEntry): void {
    this.#admit(entry)
    this.#enqueue(entry)
  }

  /** @throws AppError `unavailable` after disposal. */
  addChunk(call: Call): void {
    if (this.#crew.isClosing) throw new PoolClosedError()
    if (call.map) this.#queue.hold(call.map)
    this.#enqueue(call)
  }

  /** A map that has begun has nothing for the threads at the moment: others may begin. */
  pause(entry: MapEntry): void {
    if (this.#queue.release(entry)) this.#dispatch()
  }

  /** @param ranMs what its chunks took of the threads' time, where it came to its end. */
  leave(entry: MapEntry, ranMs?: number): void {
    if (ranMs !== undefined) this.#runTimes.learnMap(entry.task, ranMs)
    if (!this.#queue.delete(entry)) this.pause(entry)
  }

  /** Ends a call that waits or runs, as its own signal would. */
  stop(call: Call, outcome: Outcome, reason: unknown): void {
    if (call.outcome) return
    call.settle(outcome, () => call.reject(reason))
    if (this.#queue.delete(call)) return
    const member = [...this.#crew].find(({ calls }) => calls.includes(call))
    if (!member || !call.message) return
    if (member.executor.recall(call.message)) this.#crew.take(call, member)
    else this.#end(call, member, call.message.id)
    this.#dispatch()
  }

  async [Symbol.asyncDispose]() {
    this.#crew.close()
    clearTimeout(this.#sweepTimer)
    clearTimeout(this.#drainTimer)
    this.#refuseAll()
    for (const member of this.#crew) {
      for (const call of member.calls) call.refuse(new PoolClosedError())
      this.#reportCut(member)
    }
    await this.#crew[Symbol.asyncDispose]()
  }

  #admit(entry: Entry) {
    if (this.#crew.isClosing || this.#options.stopping?.aborted) throw new PoolClosedError()
    const { priority } = entry
    if (this.#queue.sizeOf(priority) >= this.#options.maxQueued)
      throw new OverloadedError(this.#waitMs(priority))
    const leastMs = this.#runTimes.leastMs(entry)
    entry.dueAt =
      entry.queuedAt +
      maxWaitMs(entry.options, entry instanceof MapEntry ? leastMs / this.#options.max : leastMs)
  }

  #enqueue(entry: Entry) {
    entry.estimateMs = this.#runTimes.guessMs(entry)
    this.#queue.push(entry)
    this.#dispatch()
    // Most do not wait.
    if (entry.list && entry.dueAt < this.#sweepAt) this.#sweepLater(entry.dueAt)
  }

  /**
   * How long a newcomer will probably wait, judged by how long the tasks before it took in the
   * past.
   */
  #waitMs(priority: Priority): number {
    const now = performance.now()
    let aheadMs = this.#queue.waitMs(priority)
    for (const { expectedMs, since } of this.#crew)
      aheadMs += Math.max(0, expectedMs - (now - since))
    return aheadMs / this.#options.max
  }

  #sweepLater(at: number) {
    clearTimeout(this.#sweepTimer)
    this.#sweepAt = at
    // What came back from a thread may have waited for too long already: Node warns of negative
    // delays.
    const delayMs = Math.max(0, Math.min(Math.ceil(at - now()), MAX_TIMER_MS))
    this.#sweepTimer = setTimeout(() => this.#sweep(), delayMs).unref()
  }

  /** Refuses what has waited too long. */
  #sweep() {
    const startedAt = now()
    let nextAt = Number.POSITIVE_INFINITY
    for (const entry of this.#queue) {
      if (entry.dueAt > startedAt) nextAt = Math.min(nextAt, entry.dueAt)
      else if (this.#queue.delete(entry))
        entry.refuse(new OverloadedError(this.#waitMs(entry.priority)))
    }
    this.#sweepAt = nextAt
    if (nextAt < Number.POSITIVE_INFINITY)
      this.#sweepLater(Math.max(nextAt, startedAt + SWEEP_EVERY_MS))
  }

  /**
   * What was accepted has until shortly before the end, so that whoever waits for it can still be
   * answered.
   */
  #startDrain() {
    const { drainMs } = this.#options
    if (drainMs === undefined) return
    this.#drainTimer = setTimeout(() => {
      this.#refuseAll()
      for (const { calls } of this.#crew)
        for (const call of [...calls]) this.stop(call, 'cancelled', new PoolClosedError())
    }, drainMs * DRAIN_SHARE).unref()
  }

  /** Gives out what waits, as far as there is somebody to take it. */
  #dispatch() {
    // A map that begins adds its first chunks.
    if (this.#isDispatching) return
    this.#isDispatching = true
    while (this.#dispatchNext());
    this.#isDispatching = false
    if (this.#queue.size === 0) this.#balance()
    else if (this.#extraMap()) this.#beginExtraLater()
    this.#crew.grow(this.#queue.size > 0)
  }

  /** False when there is nothing, or nobody to take it. */
  #dispatchNext(): boolean {
    const idle = this.#crew.idle.at(-1)
    const next = this.#queue.next(!idle || this.#crew.mayServeBatch())
    if (next instanceof MapEntry) return idle !== undefined && this.#begin(next)
    const call = next as Call | undefined
    const member = call && (idle ?? this.#crew.soonIdle(call, this.#runTimes.measuredMs(call)))
    if (!member) return false
    this.#queue.take(call)
    this.#send(call, member)
    return true
  }

  #begin(map: MapEntry): true {
    this.#queue.take(map)
    map.begin()
    return true
  }

  /**
   * A map that may begin beyond those that may, because an executor is idle and the others have
   * nothing for it.
   */
  #extraMap(): MapEntry | undefined {
    return this.#crew.idle.length > 0 ? this.#queue.extraMap(this.#crew.mayServeBatch()) : undefined
  }

  /** Once the others have had the time to add chunks. */
  #beginExtraLater() {
    this.#extra ??= setImmediate(() => {
      this.#extra = undefined
      const map = this.#extraMap()
      if (map) this.#begin(map)
      this.#dispatch()
    })
  }

  #send(call: Call, member: Member) {
    const { task, mode, input, options } = call
    lastId = (lastId + 1) | 0 || 1
    const message = {
      id: lastId,
      slot: 0,
      task,
      mode,
      input,
      wantsProgress: options.onProgress !== undefined,
    }
    // One that is busy has another reason not to begin it yet.
    const begunAt = member.isIdle ? performance.now() : undefined
    try {
      member.executor.send(message, options.transfer ?? [])
    } catch (error) {
      return call.settle('failed', () => call.reject(error))
    }
    if (begunAt !== undefined) call.sendMs = performance.now() - begunAt
    call.message = message
    // It has had its turn: taken back, it waits for another executor.
    call.dueAt = Number.POSITIVE_INFINITY
    call.estimateMs = this.#runTimes.measuredMs(call)
    this.#crew.give(call, member)
  }

  #done(member: Member, message: DoneMessage) {
    const [call] = member.calls
    if (call?.message?.id !== message.id) return
    if ('error' in message)
      call.settle('failed', () =>
        call.reject(new TaskError(call.task, message.error, itemOf(call, message))),
      )
    else
      call.settle('succeeded', () =>
        call.resolve((call.mode === 'one' ? message.output : message) as never),
      )
    this.#report(call, member, message)
    this.#runTimes.learn(call, message.runMs, 'items' in message ? message.items : call.items)
    this.#crew.take(call, member)
    if (member.state === 'ending' && member.calls.length === 0) member.state = 'serving'
    if (member.hasPlenty) return
    this.#recallOverdue()
    this.#dispatch()
  }

  #progress(member: Member, { id, progress }: ProgressMessage) {
    const [call] = member.calls
    if (call?.message?.id === id && !call.outcome) call.options.onProgress?.(progress)
  }

  /** Executors that are idle take over half of what a busy one has not begun. */
  #balance() {
    for (const idle of this.#crew.idle.toReversed()) {
      const busiest = this.#crew.mostBehind()
      if (!busiest || (busiest.calls[0]?.priority === 'batch' && !this.#crew.mayServeBatch()))
        return
      for (const call of this.#recall(busiest, Math.ceil(busiest.calls.length / 2)))
        this.#send(call, idle)
    }
  }

  /** What waits behind a call that takes much longer than expected is served before all others. */
  #recallOverdue() {
    if (this.#queue.size === 0) return
    const now = performance.now()
    for (const member of this.#crew)
      if (member.isOverdue(now)) this.#queue.unshift(this.#recall(member, member.calls.length - 1))
  }

  /** Takes back the last calls that an executor has not begun, in their order. */
  #recall(member: Member, most = Number.POSITIVE_INFINITY): Call[] {
    const recalled: Call[] = []
    for (const call of member.calls.toReversed()) {
      // Transferred buffers cannot be sent again.
      if (recalled.length >= most || call.options.transfer) break
      if (!call.message || !member.executor.recall(call.message)) break
      this.#crew.take(call, member)
      recalled.unshift(call)
    }
    return recalled
  }

  /** Asks a call to end; if it does not, its executor ends with it, and with nothing else. */
  #end(call: Call, member: Member, id: number) {
    this.#queue.unshift(this.#recall(member))
    // Another has begun since: this one is through, and the message that says so is on its way.
    if (member.calls.at(-1) !== call) return
    member.state = 'ending'
    member.executor.cancel(id)
    // A turn later: timers come before messages, and one may have arrived that says it has ended.
    setTimeout(
      () => setImmediate(() => this.#terminate(member, call)),
      call.options.graceMs ?? CANCEL_GRACE_MS,
    )
  }

  #terminate(member: Member, call: Call) {
    if (member.calls[0] !== call) return
    member.state = 'terminating'
    void member.executor.terminate()
  }

  #exited(member: Member, error: Error) {
    const { executor, endedBy, state } = member
    this.#rescue(member, error)
    // One, unless answers were lost.
    for (const call of member.calls)
      call.settle('crashed', () => call.reject(errorOf(call, member, error)))
    this.#reportCut(member)
    this.#crew.dismiss(member)
    if (state !== 'terminating')
      this.#options.onCrash?.(error, executor.name, endedBy?.task ?? member.calls[0]?.task)
    void this.#crew.replace()
    this.#dispatch()
  }

  /**
   * What an executor had not begun when it ended is served by others, unless it was that which
   * ended it.
   */
  #rescue(member: Member, error: Error) {
    const [first] = member.calls
    const rescued = this.#recall(member)
    if (first && first === rescued[0] && !member.endedBy && ++first.losses === MAX_LOSSES) {
      rescued.shift()
      first.settle('crashed', () => first.reject(new TaskError(first.task, error)))
    }
    this.#queue.unshift(rescued)
  }

  #refuseAll() {
    for (const entry of this.#queue)
      if (this.#queue.delete(entry)) entry.refuse(new PoolClosedError())
  }

  /** Reports the call that an executor's end cut off. */
  #reportCut(member: Member) {
    const [call] = member.calls
    const startedAt = performance.timeOrigin + member.since
    if (call) this.#report(call, member, { startedAt, runMs: performance.now() - member.since })
  }

  #report(call: Call, { executor }: Member, ended: Ended) {
    this.#queue.charge(call, ended.runMs)
    this.#options.onTiming?.(timingOf(call, executor.name, ended))
  }
}

/** On the clock of `Entry.queuedAt`. */
const now = () => performance.timeOrigin + performance.now()

/** What the caller learns of a call that was cut off by the end of its executor. */
function errorOf(call: Call, { executor, endedBy, isVictim }: Member, cause: Error): TaskError {
  if (!isVictim) return new TaskError(call.task, cause, itemOf(call, executor))
  const what = `its thread ended, by what the task ${endedBy?.task} had left running: ${cause.message}`
  return new TaskError(call.task, new Error(what, { cause }))
}

/** Which item of its chunk a call had reached. */
const itemOf = ({ mode }: Call, { item }: { item: number }) => (mode === 'one' ? undefined : item)
