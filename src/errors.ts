/** `cancelled` is only logged. */
const STATUS = {
  bad_request: 400,
  unauthenticated: 401,
  forbidden: 403,
  not_found: 404,
  method_not_allowed: 405,
  request_timeout: 408,
  conflict: 409,
  precondition_failed: 412,
  too_large: 413,
  unsupported_media_type: 415,
  invalid: 422,
  rate_limited: 429,
  headers_too_large: 431,
  cancelled: 499,
  internal: 500,
  overloaded: 503,
  unavailable: 503,
  deadline_exceeded: 504,
  storage_full: 507,
} as const

export type ErrorCode = keyof typeof STATUS

export const ERROR_CODES = Object.keys(STATUS) as ErrorCode[]

/** An invalid part of the input, such as `body.price`. */
export interface Issue {
  path: string
  message: string
}

interface AppErrorOptions extends ErrorOptions {
  errors?: Issue[]
  /** Such as `Allow`. */
  headers?: Record<string, string>
  /** In seconds; becomes `Retry-After`. */
  retryAfter?: number
  /** False makes a job fail at once. */
  retryable?: boolean
}

/** Clients get its message, so it must contain no secrets. Its `cause` is only logged. */
export class AppError extends Error {
  override readonly name = 'AppError'
  readonly code: ErrorCode
  readonly errors: Issue[] | undefined
  readonly headers: Record<string, string>
  readonly retryable: boolean

  constructor(
    code: ErrorCode,
    message: string,
    { errors, headers, retryAfter, retryable = true, ...options }: AppErrorOptions = {},
  ) {
    super(message, options)
    this.code = code
    this.errors = errors
    this.retryable = retryable
    this.headers =
      retryAfter === undefined ? { ...headers } : { ...headers, 'Retry-After': String(retryAfter) }
  }

  get status() {
    return STATUS[this.code]
  }
}

/**
 * Refuses load. `Retry-After` is `waitMs` to twice that, so that refused clients do not return
 * together.
 */
export function overloaded(message: string, waitMs = 1_000, cause?: unknown): AppError {
  const retryAfter = Math.max(1, Math.ceil((waitMs / 1_000) * (1 + Math.random())))
  return withoutStack(() => new AppError('overloaded', message, { cause, retryAfter }))
}

/** For frequent errors, whose stack traces would cost more than the rest. */
export function withoutStack<E extends Error>(make: () => E): E {
  const { stackTraceLimit } = Error
  Error.stackTraceLimit = 0
  try {
    return make()
  } finally {
    Error.stackTraceLimit = stackTraceLimit
  }
}
