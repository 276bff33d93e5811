import { setTimeout as sleep } from 'node:timers/promises'
import { AppError } from '../errors.ts'
import { type Call, MAX_TIMER_MS, type Outcome } from './call.ts'
import type { DoneMessage, Executor, ProgressMessage, StartExecutor } from './protocol.ts'
import { Queue } from './queue.ts'
import { RunTimes } from './run-times.ts'
import { TaskError } from './task-error.ts'
import { bytesOf, type Timing } from './timing.ts'

/** What a cancelled task gets to end by itself before its executor is terminated. */
const CANCEL_GRACE_MS = 100
/** An executor is sent its next call ahead, unless it has more than that to do. */
const AHEAD_MS = 10
/** What was sent ahead, behind a call that takes longer than that, goes to another executor. */
const OVERDUE_MS = 20
/** An executor that has not begun its only call after that long lacks a core. */
const STARVED_MS = 2
const RESTART_DELAY_MS = 100
const MAX_RESTART_DELAY_MS = 5_000
/** A call that ended so many executors before they began it was too much for them to receive: it fails. */
const MAX_LOSSES = 2

export interface PoolOptions {
  start: StartExecutor
  /** How many executors there are at most, and how many stay when there is nothing to do. */
  max: number
  min: number
  /** One that had nothing to do for so long ends. */
  idleMs: number
  /** How many calls of each priority may wait. */
  maxQueued: number
  /** When it aborts, nothing new starts: queued calls are refused, running ones go on. */
  stopping?: AbortSignal | undefined
  onTiming?: ((timing: Timing) => void) | undefined
  /** Told of every executor that ended by itself. */
  onCrash?: ((error: Error, executor: string) => void) | undefined
}

/** An executor and the calls that it holds; it works on the first of them. */
interface Member {
  readonly executor: Executor
  readonly calls: Call[]
  /** How long `calls` will probably take. */
  expectedMs: number
  /** When it began the first of them, or became idle. */
  since: number
  /** `ending`: its first call was asked to end, and it gets no other until it has. `terminating`: it gets none any more. */
  state: 'serving' | 'ending' | 'terminating'
}

/** What is known of a run that has ended, in whatever way. */
type Ended = Pick<DoneMessage, 'startedAt' | 'runMs'> & { items?: number; output?: unknown }

let lastId = 0

/**
 * Executors (worker threads, or child processes) and the bounded queue before them.
 *
 * Short calls are sent ahead to executors that are busy, so that none of them waits for the event loop between two calls.
 * What was sent and not begun can be taken back (`Executor.recall`), so that no call is ever stuck behind another: it
 * goes to an executor that is idle, and survives the end of the one that had it.
 */
export class Pool implements AsyncDisposable {
  readonly #options: PoolOptions
  readonly #queue = new Queue()
  readonly #runTimes = new RunTimes()
  readonly #members = new Set<Member>()
  readonly #idle: Member[] = []
  readonly #closing = new AbortController()
  #starting = 0

  constructor(options: PoolOptions) {
    this.#options = options
    options.stopping?.addEventListener('abort', () => this.#refuse(({ accepted }) => !accepted), { once: true })
    const reaper = setInterval(() => this.#endIdle(), Math.min(options.idleMs, MAX_TIMER_MS)).unref()
    this.#closing.signal.addEventListener('abort', () => clearInterval(reaper))
  }

  /** Starts all executors, so that no call pays for it. @throws Error when one cannot load its tasks. */
  async warmUp(): Promise<void> {
    await Promise.all(Array.from({ length: this.#options.max }, () => this.#startMember()))
  }

  /** Calls that wait for an executor. */
  get queued() {
    return this.#queue.size
  }

  /** Executors that are busy. */
  get running() {
    return this.#members.size - this.#idle.length
  }

  /**
   * Takes a call on, and settles it in the end.
   *
   * @throws AppError `saturated` when too many wait, or when it could not start before its time is up; `unavailable`
   * while stopping; the signal's reason.
   */
  add(call: Call): void {
    call.options.signal?.throwIfAborted()
    this.#assertRoom(call)
    call.estimateMs = this.#runTimes.guessMs(call)
    this.#listen(call)
    this.#queue.push(call)
    this.#dispatch()
  }

  async [Symbol.asyncDispose]() {
    this.#closing.abort()
    this.#refuse(() => true)
    for (const member of this.#members) {
      for (const call of member.calls) call.settle('cancelled', () => call.reject(stopping()))
      this.#reportCut(member)
    }
    await Promise.all([...this.#members].map(({ executor }) => executor.terminate()))
  }

  #assertRoom({ accepted, priority, options: { timeoutMs } }: Call) {
    if (this.#closing.signal.aborted) throw stopping()
    if (accepted) return
    if (this.#options.stopping?.aborted) throw stopping()
    if (this.#queue.sizeOf(priority) >= this.#options.maxQueued)
      throw saturated('Too much work is waiting for a thread: try again later', this.#waitMs(priority))
    if (timeoutMs === undefined || this.#idle.length > 0) return
    const lateMs = this.#waitMs(priority) - timeoutMs
    if (lateMs > 0) throw saturated('The work before this will take too long: try again later', lateMs)
  }

  /** How long a newcomer will probably wait, judged by how long the tasks before it took in the past. */
  #waitMs(priority: Call['priority']): number {
    const now = performance.now()
    let aheadMs = this.#queue.waitMs(priority)
    for (const { expectedMs, since } of this.#members) aheadMs += Math.max(0, expectedMs - (now - since))
    return aheadMs / this.#options.max
  }

  #listen(call: Call) {
    const { signal, timeoutMs } = call.options
    if (!signal && timeoutMs === undefined) return
    const onAbort = () => this.#stop(call, 'cancelled', signal?.reason)
    const onTimeout = () => this.#stop(call, 'deadline_exceeded', tooLate(call.task, timeoutMs))
    const timer = timeoutMs === undefined ? undefined : setTimeout(onTimeout, Math.min(timeoutMs, MAX_TIMER_MS))
    signal?.addEventListener('abort', onAbort)
    call.release = () => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
    }
  }

  /** Gives out what waits, as far as there is somebody to take it. */
  #dispatch() {
    for (;;) {
      const idle = this.#idle.at(-1)
      const call = this.#queue.peek(!idle || this.#mayServeBatch())
      const member = call && (idle ?? this.#soonIdle(call))
      if (!member) break
      this.#queue.delete(call)
      this.#send(call, member)
    }
    if (this.#queue.size === 0) this.#balance()
    if (this.#idle.length === 0 && this.#mayGrow()) void this.#replaceMember()
  }

  /** What was sent ahead needs an executor of its own, too, should the one that has it be held up. */
  #mayGrow(): boolean {
    if (this.#members.size + this.#starting >= this.#options.max) return false
    if (this.#queue.size > 0) return true
    return this.#starting === 0 && [...this.#members].some(({ calls }) => calls.length > 1)
  }

  /** Jobs leave one executor to the requests, which would else wait for the longest of them. */
  #mayServeBatch(): boolean {
    let serving = 0
    for (const { calls } of this.#members) if (calls[0]?.priority === 'batch') serving++
    return serving < Math.max(1, this.#options.max - 1)
  }

  /** A busy executor to send a call ahead to; none for a call that others could not follow soon. */
  #soonIdle(call: Call): Member | undefined {
    const estimateMs = this.#runTimes.measuredMs(call) ?? Number.POSITIVE_INFINITY
    if (estimateMs > AHEAD_MS || call.options.transfer) return undefined
    const overdue = performance.now() - OVERDUE_MS
    let soonest: Member | undefined
    for (const member of this.#members) {
      const { calls, state, executor, expectedMs, since } = member
      if (state !== 'serving' || since < overdue || calls.length >= executor.capacity || expectedMs > AHEAD_MS) continue
      if (calls[0]?.estimateMs === undefined || calls[0].priority !== call.priority) continue
      if (!soonest || expectedMs < soonest.expectedMs) soonest = member
    }
    return soonest
  }

  #send(call: Call, member: Member) {
    const { task, mode, input, options } = call
    lastId = (lastId + 1) | 0 || 1
    const message = { id: lastId, slot: 0, task, mode, input, wantsProgress: options.onProgress !== undefined }
    // Transferred buffers are empty afterwards.
    if (this.#options.onTiming) call.bytesIn ||= bytesOf(input)
    try {
      member.executor.send(message, options.transfer ?? [])
    } catch (error) {
      return call.settle('failed', () => call.reject(error))
    }
    call.message = message
    call.estimateMs = this.#runTimes.measuredMs(call)
    if (member.calls.push(call) === 1) {
      this.#idle.splice(this.#idle.indexOf(member), 1)
      member.since = performance.now()
    }
    member.expectedMs += call.estimateMs ?? 0
  }

  /** The counterpart of `#send`: the call is through, or was taken back. */
  #take(call: Call, member: Member) {
    const place = member.calls.indexOf(call)
    member.calls.splice(place, 1)
    member.expectedMs = Math.max(0, member.expectedMs - (call.estimateMs ?? 0))
    if (place === 0) member.since = performance.now()
    if (member.calls.length === 0 && member.state !== 'terminating') this.#idle.push(member)
  }

  #done(member: Member, message: DoneMessage) {
    const [call] = member.calls
    if (call?.message?.id !== message.id) return
    if ('error' in message)
      call.settle('failed', () => call.reject(new TaskError(call.task, message.error, itemOf(call, message))))
    else call.settle('succeeded', () => call.resolve((call.mode === 'one' ? message.output : message) as never))
    this.#report(call, member, message)
    this.#runTimes.learn(call, message.runMs, 'items' in message ? message.items : call.items)
    this.#take(call, member)
    if (member.state === 'ending' && member.calls.length === 0) member.state = 'serving'
    this.#recallOverdue()
    this.#dispatch()
  }

  #progress(member: Member, { id, progress }: ProgressMessage) {
    const [call] = member.calls
    if (call?.message?.id === id && !call.outcome) call.options.onProgress?.(progress)
  }

  /** Executors that are idle take over half of what a busy one has not begun. */
  #balance() {
    for (const idle of this.#idle.toReversed()) {
      const busiest = this.#mostBehind()
      if (!busiest || (busiest.calls[0]?.priority === 'batch' && !this.#mayServeBatch())) return
      for (const call of this.#recall(busiest, Math.ceil(busiest.calls.length / 2))) this.#send(call, idle)
    }
  }

  #mostBehind(): Member | undefined {
    const late = performance.now() - STARVED_MS
    let busiest: Member | undefined
    for (const member of this.#members)
      if (member.calls.length > (busiest?.calls.length ?? (member.since < late ? 0 : 1))) busiest = member
    return busiest
  }

  /** What waits behind a call that takes much longer than expected is served before all others. */
  #recallOverdue() {
    if (this.#queue.size === 0) return
    const overdue = performance.now() - OVERDUE_MS
    for (const member of this.#members)
      if (member.calls.length > 1 && member.since < overdue) this.#queue.unshift(this.#recall(member))
  }

  /** Takes back the last calls that an executor has not begun, in their order. */
  #recall(member: Member, most = Number.POSITIVE_INFINITY): Call[] {
    const recalled: Call[] = []
    for (const call of member.calls.toReversed()) {
      // Transferred buffers cannot be sent again.
      if (recalled.length >= most || call.options.transfer) break
      if (!call.message || !member.executor.recall(call.message)) break
      this.#take(call, member)
      recalled.unshift(call)
    }
    return recalled
  }

  /** The caller gives up, by its signal or its time. */
  #stop(call: Call, outcome: Outcome, reason: unknown) {
    call.settle(outcome, () => call.reject(reason))
    if (this.#queue.delete(call)) return
    const member = [...this.#members].find(({ calls }) => calls.includes(call))
    if (!member || !call.message) return
    if (member.executor.recall(call.message)) this.#take(call, member)
    else this.#end(call, member, call.message.id)
    this.#dispatch()
  }

  /** Asks a call to end; if it does not, its executor ends with it, and with nothing else. */
  #end(call: Call, member: Member, id: number) {
    this.#queue.unshift(this.#recall(member))
    // Another has begun since: this one is through, and the message that says so is on its way.
    if (member.calls.at(-1) !== call) return
    member.state = 'ending'
    member.executor.cancel(id)
    // A turn later: timers come before messages, and one may have arrived that says it has ended.
    setTimeout(() => setImmediate(() => this.#terminate(member, call)), CANCEL_GRACE_MS)
  }

  #terminate(member: Member, call: Call) {
    if (member.calls[0] !== call) return
    member.state = 'terminating'
    void member.executor.terminate()
  }

  #exited(member: Member, error: Error) {
    if (this.#closing.signal.aborted || !this.#members.has(member)) return
    this.#rescue(member, error)
    // One, unless answers were lost.
    for (const call of member.calls)
      call.settle('crashed', () => call.reject(new TaskError(call.task, error, itemOf(call, member.executor))))
    this.#reportCut(member)
    this.#dismiss(member)
    if (member.state !== 'terminating') this.#options.onCrash?.(error, member.executor.name)
    void this.#replaceMember()
    this.#dispatch()
  }

  /** What an executor had not begun when it ended is served by others, unless it was that which ended it. */
  #rescue(member: Member, error: Error) {
    const [first] = member.calls
    const rescued = this.#recall(member)
    if (first && first === rescued[0] && ++first.losses === MAX_LOSSES) {
      rescued.shift()
      first.settle('crashed', () => first.reject(new TaskError(first.task, error)))
    }
    this.#queue.unshift(rescued)
  }

  #dismiss(member: Member) {
    this.#members.delete(member)
    const place = this.#idle.indexOf(member)
    if (place >= 0) this.#idle.splice(place, 1)
  }

  #endIdle() {
    const longAgo = performance.now() - this.#options.idleMs
    for (const member of this.#idle.filter(({ since }) => since < longAgo)) {
      if (this.#members.size <= this.#options.min) return
      this.#dismiss(member)
      void member.executor.terminate()
    }
  }

  async #startMember() {
    const executor: Executor = await this.#options.start({
      done: (message) => this.#done(member, message),
      progress: (message) => this.#progress(member, message),
      exit: (error) => this.#exited(member, error),
    })
    const member: Member = { executor, calls: [], expectedMs: 0, since: performance.now(), state: 'serving' }
    if (this.#closing.signal.aborted) return executor.terminate()
    this.#members.add(member)
    this.#idle.push(member)
    this.#dispatch()
  }

  /** Tries until it succeeds: a moment without memory must not cost an executor for good. */
  async #replaceMember() {
    this.#starting++
    for (let delayMs = RESTART_DELAY_MS; !this.#closing.signal.aborted; delayMs = Math.min(delayMs * 2, MAX_RESTART_DELAY_MS)) {
      try {
        await this.#startMember()
        break
      } catch (error) {
        this.#options.onCrash?.(error as Error, 'one that starts')
        await sleep(delayMs, undefined, { signal: this.#closing.signal }).catch(() => {})
      }
    }
    this.#starting--
  }

  #refuse(which: (call: Call) => boolean) {
    for (const call of [...this.#queue].filter(which)) {
      this.#queue.delete(call)
      call.settle('cancelled', () => call.reject(stopping()))
    }
  }

  /** Reports the call that an executor's end cut off. */
  #reportCut(member: Member) {
    const [call] = member.calls
    const startedAt = performance.timeOrigin + member.since
    if (call) this.#report(call, member, { startedAt, runMs: performance.now() - member.since })
  }

  #report(call: Call, { executor }: Member, { startedAt, runMs, items = call.items, output }: Ended) {
    this.#queue.charge(call, runMs)
    const { task, outcome = 'crashed', queuedAt, bytesIn } = call
    this.#options.onTiming?.({
      task,
      thread: executor.name,
      outcome,
      items,
      queuedAt,
      startedAt,
      endedAt: startedAt + runMs,
      queuedMs: startedAt - queuedAt,
      runMs,
      bytesIn,
      bytesOut: output === undefined ? 0 : bytesOf(output),
    })
  }
}

/** Which item of its chunk a call had reached. */
const itemOf = ({ mode }: Call, { item }: { item: number }) => (mode === 'one' ? undefined : item)

const stopping = () => new AppError('unavailable', 'The service is stopping', { retryAfter: 1 })

const saturated = (message: string, waitMs: number) =>
  new AppError('saturated', message, { retryAfter: Math.max(1, Math.ceil(waitMs / 1_000)) })

const tooLate = (task: string, timeoutMs = 0) =>
  new AppError('deadline_exceeded', `The task ${task} took longer than ${timeoutMs} ms`)
