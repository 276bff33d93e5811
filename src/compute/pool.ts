import { performance } from 'node:perf_hooks'
import { Admission, type AdmissionOptions, stopping } from './admission.ts'
import type { Call, Outcome } from './call.ts'
import { Crew, type CrewOptions } from './crew.ts'
import { watchLimits } from './limits.ts'
import type { Member } from './member.ts'
import type { DoneMessage, ProgressMessage } from './protocol.ts'
import { Queue } from './queue.ts'
import { RunTimes } from './run-times.ts'
import { TaskError } from './task-error.ts'
import { bytesOf, type Ended, type Timing, timingOf } from './timing.ts'

/** What a cancelled task gets to end by itself before its executor is terminated. */
const CANCEL_GRACE_MS = 100
/** A call that ended so many executors before they began it was too much for them to receive: it fails. */
const MAX_LOSSES = 2

export interface PoolOptions extends CrewOptions, AdmissionOptions {
  onTiming?: ((timing: Timing) => void) | undefined
}

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
  readonly #crew: Crew
  readonly #admission: Admission

  constructor(options: PoolOptions) {
    this.#options = options
    this.#crew = new Crew(options, {
      joined: () => this.#dispatch(),
      done: (member, message) => this.#done(member, message),
      progress: (member, message) => this.#progress(member, message),
      exited: (member, error) => this.#exited(member, error),
    })
    this.#admission = new Admission(options, this.#queue, this.#crew)
    options.stopping?.addEventListener('abort', () => this.#refuse(({ accepted }) => !accepted), { once: true })
  }

  /** Starts all executors, so that no call pays for it. @throws Error when one cannot load its tasks. */
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
    return Array.from(this.#crew, ({ executor, calls }) => ({ name: executor.name, task: calls[0]?.task ?? null }))
  }

  /** How long an input of the task took in the past; undefined if it never ran in that mode. */
  msPerItem(task: string, mode: Call['mode']): number | undefined {
    return this.#runTimes.msPerItem(task, mode)
  }

  /**
   * Takes a call on, and settles it in the end.
   *
   * @throws AppError `overloaded` when too many wait, or when it could not start before its time is up; `unavailable`
   * while stopping; the signal's reason.
   */
  add(call: Call): void {
    call.options.signal?.throwIfAborted()
    this.#admission.check(call)
    call.estimateMs = this.#runTimes.guessMs(call)
    call.release = watchLimits(
      call.options,
      () => `The task ${call.task}`,
      (outcome, reason) => this.stop(call, outcome, reason),
    )
    this.#queue.push(call)
    this.#dispatch()
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
    this.#refuse(() => true)
    for (const member of this.#crew) {
      for (const call of member.calls) call.settle('cancelled', () => call.reject(stopping()))
      this.#reportCut(member)
    }
    await this.#crew[Symbol.asyncDispose]()
  }

  /** Gives out what waits, as far as there is somebody to take it. */
  #dispatch() {
    for (;;) {
      const idle = this.#crew.idle.at(-1)
      const call = this.#queue.peek(!idle || this.#crew.mayServeBatch())
      const member = call && (idle ?? this.#crew.soonIdle(call, this.#runTimes.measuredMs(call)))
      if (!member) break
      this.#queue.delete(call)
      this.#send(call, member)
    }
    if (this.#queue.size === 0) this.#balance()
    this.#crew.grow(this.#queue.size > 0)
  }

  #send(call: Call, member: Member) {
    const { task, mode, input, options } = call
    lastId = (lastId + 1) | 0 || 1
    const message = { id: lastId, slot: 0, task, mode, input, wantsProgress: options.onProgress !== undefined }
    // One that is busy has another reason not to begin it yet.
    const begunAt = member.isIdle ? performance.now() : undefined
    try {
      // Transferred buffers are empty afterwards.
      if (this.#options.onTiming) call.bytesIn ||= bytesOf(input)
      member.executor.send(message, options.transfer ?? [])
    } catch (error) {
      return call.settle('failed', () => call.reject(error))
    }
    if (begunAt !== undefined) call.sendMs = performance.now() - begunAt
    call.message = message
    call.estimateMs = this.#runTimes.measuredMs(call)
    this.#crew.give(call, member)
  }

  #done(member: Member, message: DoneMessage) {
    const [call] = member.calls
    if (call?.message?.id !== message.id) return
    if ('error' in message)
      call.settle('failed', () => call.reject(new TaskError(call.task, message.error, itemOf(call, message))))
    else call.settle('succeeded', () => call.resolve((call.mode === 'one' ? message.output : message) as never))
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
      if (!busiest || (busiest.calls[0]?.priority === 'batch' && !this.#crew.mayServeBatch())) return
      for (const call of this.#recall(busiest, Math.ceil(busiest.calls.length / 2))) this.#send(call, idle)
    }
  }

  /** What waits behind a call that takes much longer than expected is served before all others. */
  #recallOverdue() {
    if (this.#queue.size === 0) return
    const now = performance.now()
    for (const member of this.#crew) if (member.isOverdue(now)) this.#queue.unshift(this.#recall(member, member.calls.length - 1))
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
    setTimeout(() => setImmediate(() => this.#terminate(member, call)), call.options.graceMs ?? CANCEL_GRACE_MS)
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
    for (const call of member.calls) call.settle('crashed', () => call.reject(errorOf(call, member, error)))
    this.#reportCut(member)
    this.#crew.dismiss(member)
    if (state !== 'terminating') this.#options.onCrash?.(error, executor.name, endedBy?.task ?? member.calls[0]?.task)
    void this.#crew.replace()
    this.#dispatch()
  }

  /** What an executor had not begun when it ended is served by others, unless it was that which ended it. */
  #rescue(member: Member, error: Error) {
    const [first] = member.calls
    const rescued = this.#recall(member)
    if (first && first === rescued[0] && !member.endedBy && ++first.losses === MAX_LOSSES) {
      rescued.shift()
      first.settle('crashed', () => first.reject(new TaskError(first.task, error)))
    }
    this.#queue.unshift(rescued)
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

  #report(call: Call, { executor }: Member, ended: Ended) {
    this.#queue.charge(call, ended.runMs)
    this.#options.onTiming?.(timingOf(call, executor.name, ended))
  }
}

/** What the caller learns of a call that was cut off by the end of its executor. */
function errorOf(call: Call, { executor, endedBy, isVictim }: Member, cause: Error): TaskError {
  if (!isVictim) return new TaskError(call.task, cause, itemOf(call, executor))
  const what = `its thread ended, by what the task ${endedBy?.task} had left running: ${cause.message}`
  return new TaskError(call.task, new Error(what, { cause }))
}

/** Which item of its chunk a call had reached. */
const itemOf = ({ mode }: Call, { item }: { item: number }) => (mode === 'one' ? undefined : item)
