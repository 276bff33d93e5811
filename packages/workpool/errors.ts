/**
 * What the pool throws, besides a signal's own reason and the DataCloneError of an input that
 * cannot be sent: OverloadedError, DeadlineError, PoolClosedError and CancelledError are PoolErrors;
 * TaskError is the failure of the task itself.
 */
export abstract class PoolError extends Error {
  abstract readonly code: 'overloaded' | 'deadline_exceeded' | 'unavailable' | 'cancelled'
  /** When trying again may help; undefined where waiting does not. */
  readonly retryAfterMs: number | undefined

  /** Captures no stack trace: under load these errors are frequent, and the trace costs the most. */
  constructor(message: string, retryAfterMs?: number) {
    const { stackTraceLimit } = Error
    Error.stackTraceLimit = 0
    super(message)
    Error.stackTraceLimit = stackTraceLimit
    this.retryAfterMs = retryAfterMs
  }
}

/** The work waited too long for a worker, or the queue is full. */
export class OverloadedError extends PoolError {
  override readonly name = 'OverloadedError'
  readonly code = 'overloaded'

  /** @param retryAfterMs how long the work that is queued now will probably take. */
  constructor(retryAfterMs: number) {
    super('Too much work is waiting for a thread: try again later', retryAfterMs)
  }
}

/** The work did not end within its `timeoutMs`, or clearly cannot. */
export class DeadlineError extends PoolError {
  override readonly name = 'DeadlineError'
  readonly code = 'deadline_exceeded'
}

/** The pool is stopping or closed. */
export class PoolClosedError extends PoolError {
  override readonly name = 'PoolClosedError'
  readonly code = 'unavailable'

  constructor() {
    super('The service is stopping', 1_000)
  }
}

/** The reader of a map stopped reading, so that the rest of the map ended. */
export class CancelledError extends PoolError {
  override readonly name = 'CancelledError'
  readonly code = 'cancelled'
}

/** The task threw, or ended its worker. `cause` has the error with the worker's stack. */
export class TaskError extends Error {
  override readonly name = 'TaskError'
  readonly task: string
  /** The index of the item of a `map`. */
  readonly item: number | undefined

  constructor(task: string, cause: unknown, item?: number) {
    const where = item === undefined ? '' : ` on item ${item}`
    const why = cause instanceof Error ? cause.message : String(cause)
    super(`The task ${task} failed${where}: ${why}`, { cause })
    this.task = task
    this.item = item
  }
}
