import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Call } from './call.ts'
import type { Executor, StartExecutor } from './executor.ts'
import { Member, OVERDUE_MS } from './member.ts'
import type { DoneMessage, ProgressMessage } from './protocol.ts'
import { MAX_TIMER_MS } from './timers.ts'

/** An executor is sent its next call ahead, unless it has more than that to do. */
const AHEAD_MS = 10
/** An executor that has not begun its only call after that long lacks a core. */
const STARVED_MS = 2
/**
 * Or it still receives it, if that took longer than this to send: no other could be sent it without
 * holding the event loop.
 */
const MAX_SEND_MS = 0.5
const RESTART_DELAY_MS = 100
const MAX_RESTART_DELAY_MS = 5_000

export interface CrewOptions {
  start: StartExecutor
  /** How many executors there are at most, and how many stay when there is nothing to do. */
  max: number
  min: number
  /** One that had nothing to do for so long ends. */
  idleMs: number
  /**
   * Told of every executor that ended by itself, and of the task whose code ended it, where that is
   * known.
   */
  onCrash?: ((error: Error, executor: string, task?: string) => void) | undefined
}

interface CrewEvents {
  /** There is one more, which is idle. */
  joined: () => void
  done: (member: Member, message: DoneMessage) => void
  progress: (member: Member, message: ProgressMessage) => void
  /** A member is gone; it is still one of the crew, until it is dismissed. */
  exited: (member: Member, error: Error) => void
}

/** The executors of a pool: how many there are, and which of them a call goes to. */
export class Crew implements AsyncDisposable, Iterable<Member> {
  readonly #options: CrewOptions
  readonly #events: CrewEvents
  readonly #members = new Set<Member>()
  readonly #idle: Member[] = []
  readonly #closing = new AbortController()
  #starting = 0

  constructor(options: CrewOptions, events: CrewEvents) {
    this.#options = options
    this.#events = events
    const reaper = setInterval(
      () => this.#endIdle(),
      Math.min(options.idleMs, MAX_TIMER_MS),
    ).unref()
    this.#closing.signal.addEventListener('abort', () => clearInterval(reaper))
  }

  /** As many as there may be. @throws Error when one cannot load its tasks. */
  async startAll(): Promise<void> {
    await Promise.all(Array.from({ length: this.#options.max }, () => this.#start()))
  }

  get isClosing() {
    return this.#closing.signal.aborted
  }

  /** Those that do nothing, the one that worked last at the end. */
  get idle(): readonly Member[] {
    return this.#idle
  }

  /** How many work. */
  get busy() {
    return this.#members.size - this.#idle.length
  }

  /** Nobody new joins from here on. */
  close(): void {
    this.#closing.abort()
  }

  async [Symbol.asyncDispose]() {
    this.close()
    await Promise.all([...this.#members].map(({ executor }) => executor.terminate()))
  }

  [Symbol.iterator]() {
    return this.#members.values()
  }

  /** A member was sent a call. */
  give(call: Call, member: Member): void {
    if (member.isIdle) this.#idle.splice(this.#idle.indexOf(member), 1)
    member.add(call)
  }

  /** The counterpart of `give`: the call is through, or was taken back. */
  take(call: Call, member: Member): void {
    member.remove(call)
    if (member.isIdle) this.#idle.push(member)
  }

  /** Jobs leave one executor to the requests, which would else wait for the longest of them. */
  mayServeBatch(): boolean {
    let serving = 0
    for (const { calls } of this.#members) if (calls[0]?.priority === 'batch') serving++
    return serving < Math.max(1, this.#options.max - 1)
  }

  /** A busy one to send a call ahead to; none for a call that others could not follow soon. */
  soonIdle({ priority, options }: Call, estimateMs = Number.POSITIVE_INFINITY): Member | undefined {
    if (estimateMs > AHEAD_MS || options.transfer) return undefined
    const overdue = performance.now() - OVERDUE_MS
    let soonest: Member | undefined
    for (const member of this.#members) {
      const { calls, state, executor, expectedMs, since } = member
      if (
        state !== 'serving' ||
        since < overdue ||
        calls.length >= executor.capacity ||
        expectedMs > AHEAD_MS
      )
        continue
      if (calls[0]?.estimateMs === undefined || calls[0].priority !== priority) continue
      if (!soonest || expectedMs < soonest.expectedMs) soonest = member
    }
    return soonest
  }

  /** The one with the most calls that it may not have begun. */
  mostBehind(): Member | undefined {
    const late = performance.now() - STARVED_MS
    const isStarved = ({ calls, since }: Member) =>
      since < late && calls[0] && calls[0].sendMs < MAX_SEND_MS
    let busiest: Member | undefined
    for (const member of this.#members)
      if (member.calls.length > (busiest?.calls.length ?? (isStarved(member) ? 0 : 1)))
        busiest = member
    return busiest
  }

  /**
   * Starts one more if there may be one and nobody is idle: for calls that wait, and for those that
   * were sent ahead, should the member that has them be held up.
   */
  grow(isAnyWaiting: boolean): void {
    if (this.#idle.length > 0 || this.#members.size + this.#starting >= this.#options.max) return
    const isAnyBehind = () =>
      this.#starting === 0 && [...this.#members].some(({ calls }) => calls.length > 1)
    if (isAnyWaiting || isAnyBehind()) void this.replace()
  }

  /**
   * Starts one, and tries until it succeeds: a moment without memory must not cost an executor for
   * good.
   */
  async replace(): Promise<void> {
    this.#starting++
    for (
      let delayMs = RESTART_DELAY_MS;
      !this.isClosing;
      delayMs = Math.min(delayMs * 2, MAX_RESTART_DELAY_MS)
    ) {
      try {
        await this.#start()
        break
      } catch (error) {
        this.#options.onCrash?.(error as Error, 'one that starts')
        await sleep(delayMs, undefined, { signal: this.#closing.signal }).catch(() => {})
      }
    }
    this.#starting--
  }

  dismiss(member: Member): void {
    this.#members.delete(member)
    const place = this.#idle.indexOf(member)
    if (place >= 0) this.#idle.splice(place, 1)
  }

  async #start() {
    const executor: Executor = await this.#options.start({
      done: (message) => this.#events.done(member, message),
      progress: (message) => this.#events.progress(member, message),
      ending: (ender) => {
        member.endedBy = ender
      },
      exit: (error) => this.#exited(member, error),
    })
    const member = new Member(executor)
    if (this.isClosing) return executor.terminate()
    this.#members.add(member)
    this.#idle.push(member)
    this.#events.joined()
  }

  #exited(member: Member, error: Error) {
    if (this.isClosing || !this.#members.has(member)) return
    this.#events.exited(member, error)
  }

  #endIdle() {
    const longAgo = performance.now() - this.#options.idleMs
    for (const member of this.#idle.filter(({ since }) => since < longAgo)) {
      if (this.#members.size <= this.#options.min) return
      this.dismiss(member)
      void member.executor.terminate()
    }
  }
}
