/** The pool's own errors. Overload makes them frequent, so they have no costly stack trace. */
export abstract class PoolError extends Error {
  abstract readonly code: 'overloaded' | 'deadline_exceeded' | 'unavailable'
  /** When a retry may succeed; undefined if waiting does not help. */
  readonly retryAfterMs: number | undefined

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

  constructor(retryAfterMs: number) {
    super('Too much work is waiting for a thread: try again later', retryAfterMs)
  }
}

/** The work did not end within its `timeoutMs`, or clearly cannot. */
export class DeadlineError extends PoolError {
  override readonly name = 'DeadlineError'
  readonly code = 'deadline_exceeded'
}

export class PoolClosedError extends PoolError {
  override readonly name = 'PoolClosedError'
  readonly code = 'unavailable'

  constructor() {
    super('The service is stopping', 1_000)
  }
}

/** The task threw, or ended its worker; `cause` has the worker's stack. */
export class TaskError extends Error {
  override readonly name = 'TaskError'
  readonly task: string
  /** The index of the failed item of a map. */
  readonly item: number | undefined

  constructor(task: string, cause: unknown, item?: number) {
    const where = item === undefined ? '' : ` on item ${item}`
    const why = cause instanceof Error ? cause.message : String(cause)
    super(`The task ${task} failed${where}: ${why}`, { cause })
    this.task = task
    this.item = item
  }
}
