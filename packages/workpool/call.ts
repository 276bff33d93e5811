import type { Transferable } from 'node:worker_threads'
import { Entry, type EntryOptions, type MapEntry } from './entry.ts'
import type { Mode, RunMessage } from './protocol.ts'

export type Outcome = 'succeeded' | 'failed' | 'cancelled' | 'deadline_exceeded' | 'crashed'

export interface CallOptions extends EntryOptions {
  /** The request on whose behalf it is: its timing says so. */
  requestId?: string | undefined
  /**
   * What the task gets to end by itself once it was cancelled, before its thread is terminated; 100
   * ms if absent. Longer for native code that always ends, but not at once, and that would not
   * survive the end of its thread.
   */
  graceMs?: number | undefined
  /**
   * Buffers of the input that are moved to the thread instead of copied; they are empty here
   * afterwards.
   */
  transfer?: readonly Transferable[]
  /** Told now and then how much of the task is done, from 0 to 1. */
  onProgress?: ((fraction: number) => void) | undefined
}

interface Work {
  task: string
  mode: Mode
  input: unknown
  items: number
  /** The map that it is a chunk of. */
  map?: MapEntry | undefined
}

/**
 * One message's worth of work, from `run()` until it is settled: waiting, on its way to an
 * executor, or running.
 */
export class Call extends Entry {
  readonly task: string
  readonly mode: Mode
  readonly input: unknown
  /** How many inputs it holds. */
  readonly items: number
  readonly map: MapEntry | undefined
  readonly options: CallOptions
  readonly resolve: (output: never) => void
  readonly reject: (reason: unknown) => void
  /** Set while an executor has it. */
  message: RunMessage | undefined
  outcome: Outcome | undefined
  /** How long it took to send to an idle executor, which takes about as long to receive it. */
  sendMs = 0
  /** How many executors ended before they began it. */
  losses = 0
  /** Stops listening for its end from outside. */
  release: (() => void) | undefined

  constructor(
    work: Work,
    options: CallOptions,
    resolve: (output: never) => void,
    reject: (reason: unknown) => void,
  ) {
    super()
    this.task = work.task
    this.mode = work.mode
    this.input = work.input
    this.items = work.items
    this.map = work.map
    this.options = options
    this.resolve = resolve
    this.reject = reject
  }

  settle(outcome: Outcome, settle: () => void): void {
    if (this.outcome) return
    this.outcome = outcome
    this.release?.()
    settle()
  }

  refuse(reason: unknown): void {
    this.settle('cancelled', () => this.reject(reason))
  }
}
