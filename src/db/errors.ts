import { AppError } from '../errors.ts'

/** What mysql2 throws: the server's number (`errno`), or only a `code` where the connection itself failed. */
interface MysqlError extends Error {
  code?: string
  errno?: number
}

/** Errors after which the whole transaction may run again: lock wait timeout, deadlock, snapshot conflict. */
const RETRYABLE = new Set([1205, 1213, 1020])

/** The server turned read-only, as in a failover: this connection will never write again, a new one may. */
const READ_ONLY = new Set([1290, 1792, 1836])

/** The server is there but cannot serve: too many connections, shutting down, session killed (MySQL and MariaDB). */
const REFUSING = new Set([1040, 1053, 1203, 1927, 3168, 3169, 4031])

/** Codes of Node's sockets and of mysql2's protocol layer. */
const DISCONNECTED = /^(ECONN|EPIPE|ETIMEDOUT|EHOST|ENET|ENOTFOUND|EAI_|ENOENT|PROTOCOL_)/

/** Whether the transaction that gave this error may simply be run again. */
export const isRetryable = (error: unknown) => isMysqlError(error) && RETRYABLE.has(error.errno ?? 0)

/** Whether the database cannot be used now, or not through the connection that gave this error. */
export function isUnavailable(error: unknown): boolean {
  if (error instanceof AggregateError) return error.errors.some(isUnavailable)
  if (!isMysqlError(error)) return false
  const { errno = 0, code = '' } = error
  return READ_ONLY.has(errno) || REFUSING.has(errno) || DISCONNECTED.test(code) || error.message.includes('closed')
}

/** Whether a row with this value of the unique key `key` exists already. */
export const isDuplicateKey = (error: unknown, key: string) =>
  isMysqlError(error) && error.errno === 1062 && new RegExp(`for key '(\\w+\\.)?${RegExp.escape(key)}'`).test(error.message)

/** Turns a database that cannot be used into `unavailable`; any other error stays what it is. */
export const translate = (error: unknown, message = 'The database cannot be reached: try again shortly') =>
  isUnavailable(error) ? new AppError('unavailable', message, { cause: error, retryAfter: 1 }) : error

const isMysqlError = (error: unknown): error is MysqlError => error instanceof Error && !(error instanceof AppError)
