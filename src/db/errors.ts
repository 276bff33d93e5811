import { AppError } from '../errors.ts'

interface MysqlError extends Error {
  code?: string
  errno?: number
}

/** Lock wait timeout, deadlock, snapshot conflict, lost certification. */
const RETRYABLE = new Set([1205, 1213, 1020, 3101])

/** Read-only, as in a failover: a new connection may write. */
const READ_ONLY = new Set([1290, 1792, 1836])

/**
 * Too many connections, shutdown, node outside its cluster, broken network, used-up quota, killed
 * session.
 */
const REFUSING = new Set([
  1040, 1047, 1053, 1152, 1158, 1159, 1160, 1161, 1184, 1203, 1226, 1927, 3168, 3169, 4031,
])

/** `max_execution_time` of MySQL, `max_statement_time` of MariaDB. */
const TIMED_OUT = new Set([3024, 1969])

/** By `KILL QUERY`. */
const INTERRUPTED = 1317

/** `max_prepared_stmt_count`. */
const TOO_MANY_STATEMENTS = 1461

const DISCONNECTED =
  /^(ECONN|EPIPE|ETIMEDOUT|EHOST|ENET|ENOTFOUND|EAI_|ENOENT|ERR_STREAM_|PROTOCOL_)/

/** mysql2 gives its error for a closed connection no number or code. */
const CLOSED = /\bclosed\b/

export const isRetryable = (error: unknown) =>
  isMysqlError(error) && RETRYABLE.has(error.errno ?? 0)

export function isUnavailable(error: unknown): boolean {
  if (!isMysqlError(error) || !isServerError(error)) return isDisconnect(error)
  return READ_ONLY.has(error.errno) || REFUSING.has(error.errno)
}

/** Whether the connection failed, so that the outcome of its statement is unknown. */
export function isDisconnect(error: unknown): boolean {
  if (error instanceof AggregateError) return error.errors.some(isDisconnect)
  if (!isMysqlError(error) || isServerError(error)) return false
  return error.code === undefined ? CLOSED.test(error.message) : DISCONNECTED.test(error.code)
}

/** Whether the unique key `key` is violated. A value in the message cannot pass for it. */
export const isDuplicateKey = (error: unknown, key: string) =>
  isMysqlError(error) &&
  error.errno === 1062 &&
  new RegExp(`for key '(\\w+\\.)?${RegExp.escape(key)}'$`).test(error.message)

/** Turns errors that a client can act on into AppErrors. */
export function translate(cause: unknown): unknown {
  if (isUnavailable(cause)) return unavailable(cause)
  const { errno = 0 } = isMysqlError(cause) ? cause : {}
  if (errno === INTERRUPTED)
    return unavailable(cause, 'The database stopped the statement: try again shortly')
  if (errno === TOO_MANY_STATEMENTS)
    return unavailable(cause, 'The database has no room for another statement: try again shortly')
  if (!TIMED_OUT.has(errno)) return cause
  const message = 'The database stopped a statement that took too long'
  return new AppError('deadline_exceeded', message, { cause })
}

/** The database cannot be used, and nothing was changed. */
export const unavailable = (
  cause: unknown,
  message = 'The database cannot be reached: try again shortly',
) => new AppError('unavailable', message, { cause, retryAfter: 1 })

/** Has no `Retry-After`, because a repeated request may apply the change twice. */
export const outcomeUnknown = (cause: unknown) =>
  new AppError(
    'unavailable',
    'The database went away while it saved the change, which may have been saved or not: ' +
      'read it before you try again',
    { cause },
  )

const isMysqlError = (error: unknown): error is MysqlError =>
  error instanceof Error && !(error instanceof AppError)

/** Node's socket errors have a negative `errno`, mysql2's own none. */
const isServerError = (error: MysqlError): error is MysqlError & { errno: number } =>
  Number(error.errno) > 0
