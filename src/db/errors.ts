import { AppError } from '../errors.ts'

/** Has the server's number, or only a code where the connection failed. */
interface MysqlError extends Error {
  code?: string
  errno?: number
}

/** Lock wait timeout, deadlock, snapshot conflict, lost certification: run it again. */
const RETRYABLE = new Set([1205, 1213, 1020, 3101])

/** Read-only, as in a failover: a new connection may write. */
const READ_ONLY = new Set([1290, 1792, 1836])

/**
 * Too many connections, shutting down, node not in its cluster, network broken, quota of the
 * account used up, session killed (MySQL and MariaDB).
 */
const REFUSING = new Set([
  1040, 1047, 1053, 1152, 1158, 1159, 1160, 1161, 1184, 1203, 1226, 1927, 3168, 3169, 4031,
])

/** `max_execution_time` of MySQL, `max_statement_time` of MariaDB. */
const TIMED_OUT = new Set([3024, 1969])

/** By `KILL QUERY`. */
const INTERRUPTED = 1317

/** `max_prepared_stmt_count` of all processes together. */
const TOO_MANY_STATEMENTS = 1461

const DISCONNECTED =
  /^(ECONN|EPIPE|ETIMEDOUT|EHOST|ENET|ENOTFOUND|EAI_|ENOENT|ERR_STREAM_|PROTOCOL_)/

/** How mysql2 refuses a statement on a closed connection, without a number or a code. */
const CLOSED = /\bclosed\b/

export const isRetryable = (error: unknown) =>
  isMysqlError(error) && RETRYABLE.has(error.errno ?? 0)

/** Whether the database, or the connection that gave this error, cannot be used now. */
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

/** Whether a row with this value of the unique key `key` exists. No value can pass for a key. */
export const isDuplicateKey = (error: unknown, key: string) =>
  isMysqlError(error) &&
  error.errno === 1062 &&
  new RegExp(`for key '(\\w+\\.)?${RegExp.escape(key)}'$`).test(error.message)

/** Turns an error that a client can act on into an AppError, and returns any other as it is. */
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

/** Without `Retry-After`: sending the request again may do twice what was wanted once. */
export const outcomeUnknown = (cause: unknown) =>
  new AppError(
    'unavailable',
    'The database went away while it saved the change, which may have been saved or not: read it before you try again',
    { cause },
  )

const isMysqlError = (error: unknown): error is MysqlError =>
  error instanceof Error && !(error instanceof AppError)

/** Errors of Node's sockets have a negative `errno`, and those of mysql2 itself none. */
const isServerError = (error: MysqlError): error is MysqlError & { errno: number } =>
  Number(error.errno) > 0
