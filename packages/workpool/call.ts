import { performance } from 'node:perf_hooks'
import type { Transferable } from 'node:worker_threads'
import { DeadlineError } from './errors.ts'
import type { Mode } from './protocol.ts'

export type Priority = 'interactive' | 'batch'
export type Outcome = 'succeeded' | 'failed' | 'cancelled' | 'deadline_exceeded' | 'crashed'

export interface WorkOptions {
  /** Cancels the work; the promise rejects with the signal's reason. */
  signal?: AbortSignal | undefined
  /** Limits waiting and running together; no limit if absent. */
  timeoutMs?: number | undefined
  /** `interactive` (the default) for requests, `batch` for jobs; neither starves the other. */
  priority?: Priority | undefined
  /** Callers, such as customers, get equal shares of the workers. */
  key?: string | undefined
  /** This and `trace`, a W3C traceparent, are copied to the Timing. */
  requestId?: string | undefined
  /** Whether other processes take part: see PoolOptions.remote. */
  distributed?: boolean | undefined
  /** Another process sent it, and takes it back if no worker begins it soon. */
  isRemote?: boolean
  trace?: string | undefined
}

export interface CallOptions extends WorkOptions {
  /** From cancelling a task to terminating its worker; 100 ms if absent. */
  graceMs?: number | undefined
  /** Buffers of the input to move; they are empty here afterwards. */
  transfer?: readonly Transferable[]
  /** Receives the fraction done, at most every 100 ms. */
  onProgress?: ((fraction: number) => void) | undefined
}

/** Node's timers fire at once for longer delays. */
export const MAX_TIMER_MS = 2 ** 31 - 1

export const now = () => performance.timeOrigin + performance.now()

export interface Link {
  previous: Link
  next: Link
}

export type Entry = Call | MapEntry

abstract class QueueEntry {
  abstract readonly kind: 'run' | 'chunk' | 'map'
  abstract readonly items: number
  readonly task: string
  readonly options: WorkOptions
  readonly #reject: (reason: unknown) => void
  readonly queuedAt = now()
  /** It is refused if it waits at this time. */
  latestStartAt = Number.POSITIVE_INFINITY
  /** Undefined once sent if the task never ran before. */
  estimateMs: number | undefined = undefined
  outcome: Outcome | undefined = undefined
  stopWatching: (() => void) | undefined = undefined
  list: object | undefined = undefined
  previous: Link = this
  next: Link = this

  constructor(task: string, options: WorkOptions, reject: (reason: unknown) => void) {
    this.task = task
    this.options = options
    this.#reject = reject
  }

  get priority(): Priority {
    return this.options.priority ?? 'interactive'
  }

  fail(outcome: Outcome, reason: unknown): void {
    if (this.end(outcome)) this.#reject(reason)
  }

  watchLimits(onLimit: (outcome: Outcome, reason: unknown) => void): void {
    const { signal, timeoutMs } = this.options
    if (!signal && timeoutMs === undefined) return
    const onAbort = () => onLimit('cancelled', signal?.reason)
    const onTimeout = () => {
      const message = `The task ${this.task} took longer than ${timeoutMs} ms`
      onLimit('deadline_exceeded', new DeadlineError(message))
    }
    const timer =
      timeoutMs === undefined ? undefined : setTimeout(onTimeout, Math.min(timeoutMs, MAX_TIMER_MS))
    signal?.addEventListener('abort', onAbort)
    this.stopWatching = () => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
    }
  }

  protected end(outcome: Outcome): boolean {
    if (this.outcome) return false
    this.outcome = outcome
    this.stopWatching?.()
    return true
  }
}

export class MapEntry extends QueueEntry {
  readonly kind = 'map'
  readonly items = 1
  readonly begin: () => void
  readonly countUnsent: () => number

  constructor(
    task: string,
    options: WorkOptions,
    { begin, countUnsent }: Pick<MapEntry, 'begin' | 'countUnsent'>,
    reject: (reason: unknown) => void,
  ) {
    super(task, options, reject)
    this.begin = begin
    this.countUnsent = countUnsent
  }
}

/** The work of one message: a run, or a chunk of a map. */
export class Call extends QueueEntry {
  declare readonly options: CallOptions
  readonly kind: 'run' | 'chunk'
  readonly mode: Mode
  readonly input: unknown
  readonly items: number
  readonly map: MapEntry | undefined
  readonly #resolve: (output: never) => void
  /** The id of the latest message; 0 before one is sent. */
  id = 0
  slot = 0
  /** The time to send to an idle worker; receiving takes about as long. */
  sendMs = 0
  progress: number | undefined = undefined
  lostWorkers = 0

  constructor(
    work: { task: string; mode: Mode; input: unknown; items: number; map?: MapEntry },
    options: CallOptions,
    resolve: (output: never) => void,
    reject: (reason: unknown) => void,
  ) {
    super(work.task, options, reject)
    this.kind = work.map ? 'chunk' : 'run'
    this.mode = work.mode
    this.input = work.input
    this.items = work.items
    this.map = work.map
    this.#resolve = resolve
  }

  succeed(output: unknown): void {
    if (this.end('succeeded')) this.#resolve(output as never)
  }
}
