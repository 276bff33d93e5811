import { performance } from 'node:perf_hooks'
import type { Transferable } from 'node:worker_threads'
import type { Limits } from './limits.ts'
import type { Mode, RunMessage } from './protocol.ts'

export type Priority = 'interactive' | 'batch'

export type Outcome = 'succeeded' | 'failed' | 'cancelled' | 'deadline_exceeded' | 'crashed'

export interface CallOptions extends Limits {
  /** Requests are `interactive`, jobs are `batch`: neither can starve the other. */
  priority?: Priority | undefined
  /** Who calls, say a customer's id: those who wait are served in turns, however much one of them asks for. */
  key?: string | undefined
  /** The request on whose behalf it is: its timing says so. */
  requestId?: string | undefined
  /**
   * What the task gets to end by itself once it was cancelled, before its thread is terminated; 100 ms if absent. Longer for
   * native code that always ends, but not at once, and that would not survive the end of its thread.
   */
  graceMs?: number | undefined
  /** Buffers of the input that are moved to the thread instead of copied; they are empty here afterwards. */
  transfer?: readonly Transferable[]
  /** Told now and then how much of the task is done, from 0 to 1. */
  onProgress?: ((fraction: number) => void) | undefined
}

/** One message's worth of work, from `run()` until it is settled: waiting, on its way to an executor, or running. */
export class Call {
  readonly task: string
  readonly mode: Mode
  readonly input: unknown
  /** How many inputs it holds. */
  readonly items: number
  readonly options: CallOptions
  readonly resolve: (output: never) => void
  readonly reject: (reason: unknown) => void
  readonly queuedAt = performance.timeOrigin + performance.now()
  /** Part of something that has begun: it is not refused any more. */
  readonly accepted: boolean
  /** How long it will probably run; while an executor has it, undefined if its task never ran before. */
  estimateMs: number | undefined
  /** Set while an executor has it. */
  message: RunMessage | undefined
  outcome: Outcome | undefined
  /** How long it took to send to an idle executor, which takes about as long to receive it. */
  sendMs = 0
  /** About the size of its input, if somebody wants to know. */
  bytesIn = 0
  /** How many executors ended before they began it. */
  losses = 0
  /** Its place in the queue, while it waits. */
  line: object | undefined
  previous: Call | undefined
  next: Call | undefined
  /** Stops listening for its end from outside. */
  release: (() => void) | undefined

  constructor(
    work: { task: string; mode: Mode; input: unknown; items: number; accepted: boolean },
    options: CallOptions,
    resolve: (output: never) => void,
    reject: (reason: unknown) => void,
  ) {
    this.task = work.task
    this.mode = work.mode
    this.input = work.input
    this.items = work.items
    this.accepted = work.accepted
    this.options = options
    this.resolve = resolve
    this.reject = reject
  }

  get priority(): Priority {
    return this.options.priority ?? 'interactive'
  }

  settle(outcome: Outcome, settle: () => void): void {
    if (this.outcome) return
    this.outcome = outcome
    this.release?.()
    settle()
  }
}
