type Code =
  | 'not_found'
  | 'conflict'
  | 'too_large'
  | 'cancelled'
  | 'deadline_exceeded'
  | 'unavailable'

/** What this package throws, and aborts a handler's signal with. People may see the message. */
export class JobError extends Error {
  override readonly name = 'JobError'
  readonly code: Code
  /** False where another attempt cannot help. */
  readonly retryable: boolean

  constructor(code: Code, message: string, { retryable = true } = {}) {
    super(message)
    this.code = code
    this.retryable = retryable
  }
}
