import { performance } from 'node:perf_hooks'
import type { Transferable } from 'node:worker_threads'
import { DeadlineError } from './errors.ts'
import type { Mode } from './protocol.ts'

/** Requests are `interactive`, jobs are `batch`: neither can starve the other. */
export type Priority = 'interactive' | 'batch'

export type Outcome = 'succeeded' | 'failed' | 'cancelled' | 'deadline_exceeded' | 'crashed'

/** What the caller of a run or a map decides. */
export interface WorkOptions {
  /** Cancels the work when it aborts; the promise rejects with its reason. */
  signal?: AbortSignal | undefined
  /** The time for waiting and running together; unlimited if absent. */
  timeoutMs?: number | undefined
  /** `interactive` if absent. */
  priority?: Priority | undefined
  /** Identifies the caller, such as a customer or a client's address: callers get equal shares. */
  key?: string | undefined
  /** The request on whose behalf the work runs, for its Timing. */
  requestId?: string | undefined
}

export interface CallOptions extends WorkOptions {
  /** The time between cancelling a task and terminating its worker; 100 ms if absent. */
  graceMs?: number | undefined
  /** Buffers of the input to move instead of copying; they are empty here afterwards. */
  transfer?: readonly Transferable[]
  /** Receives the fraction that is done, a few times a second at most. */
  onProgress?: ((fraction: number) => void) | undefined
}

/** The longest delay of Node's timers: a longer one would fire at once. */
export const MAX_TIMER_MS = 2 ** 31 - 1

/** On the clock of `performance.timeOrigin`, which all threads share. */
export const now = () => performance.timeOrigin + performance.now()

/** What waits in the queue: a call, or a whole map that has not begun. */
export abstract class QueueEntry {
  readonly queuedAt = now()
  /** Refused when it still waits at this time. */
  latestStartAt = Number.POSITIVE_INFINITY
  /** The expected run time; undefined, once a worker has it, for a task that never ran before. */
  estimateMs: number | undefined = undefined
  /** The links of the list that it waits in. */
  list: object | undefined = undefined
  previous: QueueEntry | undefined = undefined
  next: QueueEntry | undefined = undefined
  abstract readonly task: string
  abstract readonly options: WorkOptions
  /** Ends the entry before any of it has run. */
  abstract refuse(reason: unknown): void

  get priority(): Priority {
    return this.options.priority ?? 'interactive'
  }

  /** Reports the abort of the signal or the end of the time. Returns what stops watching. */
  watchLimits(
    onLimit: (outcome: 'cancelled' | 'deadline_exceeded', reason: unknown) => void,
  ): (() => void) | undefined {
    const { signal, timeoutMs } = this.options
    if (!signal && timeoutMs === undefined) return undefined
    const onAbort = () => onLimit('cancelled', signal?.reason)
    const onTimeout = () => {
      const message = `The task ${this.task} took longer than ${timeoutMs} ms`
      onLimit('deadline_exceeded', new DeadlineError(message))
    }
    const timer =
      timeoutMs === undefined ? undefined : setTimeout(onTimeout, Math.min(timeoutMs, MAX_TIMER_MS))
    signal?.addEventListener('abort', onAbort)
    return () => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
    }
  }
}

/** A map, which waits for its turn as one entry, however many chunks it will have. */
export class MapEntry extends QueueEntry {
  readonly task: string
  readonly options: WorkOptions
  /** Adds the map's first chunks. */
  readonly begin: () => void
  readonly refuse: (reason: unknown) => void

  constructor(
    task: string,
    options: WorkOptions,
    begin: () => void,
    refuse: (reason: unknown) => void,
  ) {
    super()
    this.task = task
    this.options = options
    this.begin = begin
    this.refuse = refuse
  }
}

interface Work {
  task: string
  mode: Mode
  input: unknown
  /** How many inputs `input` holds. */
  items: number
  /** The map that the work is a chunk of. */
  map?: MapEntry | undefined
}

/** One message's worth of work, from the caller's call until it is settled. */
export class Call extends QueueEntry {
  readonly task: string
  readonly mode: Mode
  readonly input: unknown
  readonly items: number
  readonly map: MapEntry | undefined
  readonly options: CallOptions
  readonly resolve: (output: never) => void
  readonly reject: (reason: unknown) => void
  /** The id of its last message; 0 before it was sent. */
  id = 0
  /** Where that message stands in the worker's shared memory. */
  slot = 0
  /** How long sending to an idle worker took; receiving takes about as long. */
  sendMs = 0
  /** How many workers ended before they began it. */
  lostWorkers = 0
  outcome: Outcome | undefined = undefined
  stopWatching: (() => void) | undefined = undefined

  constructor(
    { task, mode, input, items, map }: Work,
    options: CallOptions,
    resolve: (output: never) => void,
    reject: (reason: unknown) => void,
  ) {
    super()
    this.task = task
    this.mode = mode
    this.input = input
    this.items = items
    this.map = map
    this.options = options
    this.resolve = resolve
    this.reject = reject
  }

  succeed(output: unknown): void {
    if (this.#end('succeeded')) this.resolve(output as never)
  }

  fail(outcome: Outcome, reason: unknown): void {
    if (this.#end(outcome)) this.reject(reason)
  }

  refuse(reason: unknown): void {
    this.fail('cancelled', reason)
  }

  /** False when it has ended before. */
  #end(outcome: Outcome): boolean {
    if (this.outcome) return false
    this.outcome = outcome
    this.stopWatching?.()
    return true
  }
}
