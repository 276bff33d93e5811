import { type ServerResponse, STATUS_CODES } from 'node:http'
import type { ErrorHandler } from 'hono'
import { AppError, overloaded } from '../errors.ts'
import { type Log, Repeats } from '../log.ts'
import type { Env } from './env.ts'
import { requestIdOf } from './exchange.ts'

/**
 * The body of every error answer: https://www.rfc-editor.org/rfc/rfc9457 with a code that programs
 * can switch on.
 */
export const problemOf = (
  { code, status, message, errors }: AppError,
  instance: string,
  requestId?: string,
) => ({
  type: 'about:blank',
  title: STATUS_CODES[status] ?? 'Client Closed Request',
  status,
  detail: message,
  instance,
  code,
  requestId,
  errors,
})

/**
 * Answers with a problem. Safe at any point of a request: it needs nothing that a middleware sets.
 */
export const problemResponse = (error: AppError, instance: string, requestId?: string) =>
  new Response(JSON.stringify(problemOf(error, instance, requestId)), {
    status: error.status,
    headers: headersOf(error),
  })

/**
 * The same where there is no app: on Node's own response. It closes the connection, whose client
 * may not speak HTTP well.
 */
export function writeProblem(
  outgoing: ServerResponse,
  error: AppError,
  instance: string,
  requestId?: string,
): void {
  const body = JSON.stringify(problemOf(error, instance, requestId))
  outgoing.shouldKeepAlive = false
  outgoing.writeHead(error.status, {
    ...headersOf(error),
    'Content-Length': Buffer.byteLength(body),
  })
  outgoing.end(body)
}

/** The same where there is not even a request: the bytes of a whole answer. */
export function problemBytes(error: AppError): string {
  const body = JSON.stringify(problemOf(error, ''))
  const headers = {
    ...headersOf(error),
    'Content-Length': Buffer.byteLength(body),
    Connection: 'close',
  }
  const head = Object.entries(headers).map(([name, value]) => `${name}: ${value}`)
  return [`HTTP/1.1 ${error.status} ${STATUS_CODES[error.status]}`, ...head, '', body].join('\r\n')
}

const headersOf = ({ headers }: AppError) => ({
  'Content-Type': 'application/problem+json',
  'Cache-Control': 'no-store',
  ...headers,
})

/** Turns whatever a handler threw into a problem, and logs what an operator must see. */
export const errorHandler = (log: Log): ErrorHandler<Env> => {
  const logRefusal = refusalLog(log)
  return (thrown, c) => {
    const error = toAppError(thrown)
    const requestId = requestIdOf(c)
    if (error.status === 503) logRefusal(error, requestId)
    else if (error.code === 'internal') log.error({ err: thrown, requestId }, 'A request failed')
    else if (error.status >= 500)
      log.warn({ code: error.code, reason: reasonOf(error), requestId }, error.message)
    return problemResponse(error, c.req.path, requestId)
  }
}

/**
 * Logs the first refusal for a reason at once, and how many there were since then after a while:
 * when the service is overloaded or the database is away, a line for each would make it worse.
 */
function refusalLog(log: Log) {
  const repeats = new Repeats()
  return (error: AppError, requestId: string) => {
    const { code, message } = error
    const reason = reasonOf(error)
    const logOthers = (refused: number) => log.warn({ code, reason, refused }, message)
    if (repeats.isFirst(`${message} ${reason}`, logOthers))
      log.warn({ code, reason, requestId }, message)
  }
}

function toAppError(thrown: unknown): AppError {
  if (thrown instanceof AppError) return thrown
  if (isOutOfFiles(thrown))
    return overloaded('Too many files and connections are open: try again later', undefined, thrown)
  return new AppError('internal', 'Something went wrong on our side', { cause: thrown })
}

const isOutOfFiles = (thrown: unknown) =>
  thrown instanceof Error &&
  ['EMFILE', 'ENFILE'].includes((thrown as NodeJS.ErrnoException).code ?? '')

const reasonOf = ({ cause }: AppError) => (cause instanceof Error ? cause.message : undefined)
