import { performance } from 'node:perf_hooks'
import type { Call } from './call.ts'
import type { Executor } from './executor.ts'
import type { Owner } from './protocol.ts'

/** What was sent ahead, behind a call that takes longer than that, goes to another executor. */
export const OVERDUE_MS = 20

/** An executor and the calls that it holds; it works on the first of them. */
export class Member {
  readonly executor: Executor
  readonly calls: Call[] = []
  /** How long `calls` will probably take. */
  expectedMs = 0
  /** When it began the first of them, or became idle. */
  since = performance.now()
  /**
   * `ending`: its first call was asked to end, and it gets no other until it has. `terminating`: it
   * gets none any more.
   */
  state: 'serving' | 'ending' | 'terminating' = 'serving'
  /** Whose code ended its executor, where that is known. */
  endedBy: Owner | undefined

  constructor(executor: Executor) {
    this.executor = executor
  }

  get isIdle() {
    return this.calls.length === 0 && this.state !== 'terminating'
  }

  /**
   * It is given more in one go when half is done: to wake an executor that sleeps costs more than
   * many a call.
   */
  get hasPlenty() {
    return this.calls.length > this.executor.capacity / 2
  }

  /** Whether what ended its executor was left behind by a message that had been answered before. */
  get isVictim() {
    return this.endedBy !== undefined && this.endedBy.id !== this.calls[0]?.message?.id
  }

  /** Its first call takes much longer than expected, while others wait behind it. */
  isOverdue(now: number): boolean {
    return this.calls.length > 1 && this.since < now - OVERDUE_MS
  }

  /** A call was sent to it. */
  add(call: Call): void {
    if (this.calls.push(call) === 1) this.since = performance.now()
    this.expectedMs += call.estimateMs ?? 0
  }

  /** A call is through, or was taken back. */
  remove(call: Call): void {
    this.expectedMs = Math.max(0, this.expectedMs - (call.estimateMs ?? 0))
    if (this.calls[0] !== call) {
      this.calls.splice(this.calls.indexOf(call), 1)
      return
    }
    this.calls.shift()
    this.since = performance.now()
  }
}
