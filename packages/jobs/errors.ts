export type JobErrorCode =
  | 'not_found'
  | 'conflict'
  | 'too_large'
  | 'cancelled'
  | 'deadline_exceeded'
  | 'unavailable'

/**
 * What this package throws, and the reason with which it aborts a handler's signal. People may see
 * the message.
 */
export class JobError extends Error {
  override readonly name = 'JobError'
  readonly code: JobErrorCode
  /** False where another attempt cannot help. */
  readonly retryable: boolean

  constructor(code: JobErrorCode, message: string, { retryable = true } = {}) {
    super(message)
    this.code = code
    this.retryable = retryable
  }
}
