import { type ServerResponse, STATUS_CODES } from 'node:http'
import { PoolError } from '@offloop/workpool/errors'
import type { ErrorHandler, Hono, MiddlewareHandler, NotFoundHandler } from 'hono'
import { methodNotAllowed } from 'hono/method-not-allowed'
import { AppError, overloaded, withoutStack } from '../errors.ts'
import { type Log, Repeats } from '../log.ts'
import { type Env, getContext } from './context.ts'

/** Every error response: RFC 9457's problem+json with a `code` that programs can switch on. */
export const toProblem = (
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

/** An error as a Web response. */
export const problemResponse = (error: AppError, instance: string, requestId?: string) =>
  new Response(JSON.stringify(toProblem(error, instance, requestId)), {
    status: error.status,
    headers: problemHeaders(error),
  })

/** An error on Node's response, where there is no app; closes the connection. */
export function writeProblem(
  outgoing: ServerResponse,
  error: AppError,
  instance: string,
  requestId?: string,
): void {
  const body = JSON.stringify(toProblem(error, instance, requestId))
  outgoing.shouldKeepAlive = false
  outgoing.writeHead(error.status, {
    ...problemHeaders(error),
    'Content-Length': Buffer.byteLength(body),
  })
  outgoing.end(body)
}

/** An error as the bytes of a whole HTTP response, where there is not even a request. */
export function problemBytes(error: AppError): string {
  const body = JSON.stringify(toProblem(error, ''))
  const headers = {
    ...problemHeaders(error),
    'Content-Length': Buffer.byteLength(body),
    Connection: 'close',
  }
  const head = Object.entries(headers).map(([name, value]) => `${name}: ${value}`)
  return [`HTTP/1.1 ${error.status} ${STATUS_CODES[error.status]}`, ...head, '', body].join('\r\n')
}

const problemHeaders = ({ headers }: AppError) => ({
  'Content-Type': 'application/problem+json',
  'Cache-Control': 'no-store',
  ...headers,
})

/** Turns whatever a handler threw into a problem, and logs what an operator must see. */
export const errorHandler = (log: Log): ErrorHandler<Env> => {
  const logRefusal = refusalLog(log)
  return (thrown, c) => {
    const error = toAppError(thrown)
    const { requestId } = getContext(c)
    if (error.status === 503) logRefusal(error, requestId)
    else if (error.code === 'internal') log.error({ err: thrown, requestId }, 'Request failed')
    else if (error.status >= 500)
      log.warn({ code: error.code, reason: reason(error), requestId }, error.message)
    return problemResponse(error, c.req.path, requestId)
  }
}

export const notFound: NotFoundHandler<Env> = (c) => {
  const error = new AppError('not_found', `There is nothing at ${c.req.path}`)
  return problemResponse(error, c.req.path, getContext(c).requestId)
}

/** Answers 405 with `Allow` where a path exists under other methods, and OPTIONS with 204. */
export const allowMethods = (app: Hono<Env>): MiddlewareHandler =>
  methodNotAllowed({
    app,
    onMethodNotAllowed: (c, methods) => {
      const { method, path } = c.req
      const headers = { Allow: [...methods, 'OPTIONS'].join(', ') }
      if (method === 'OPTIONS') return new Response(null, { status: 204, headers })
      const error = new AppError('method_not_allowed', `${path} does not take ${method}`, {
        headers,
      })
      return problemResponse(error, path, getContext(c).requestId)
    },
  })

/**
 * Logs the first refusal per reason, and after a while how many followed: when the service is
 * overloaded or its database is away, a line for each would make it worse.
 */
function refusalLog(log: Log) {
  const repeats = new Repeats()
  return (error: AppError, requestId: string) => {
    const { code, message } = error
    const fields = { code, reason: reason(error) }
    const logOthers = (refused: number) => log.warn({ ...fields, refused }, message)
    if (repeats.isFirst(`${message} ${fields.reason}`, logOthers))
      log.warn({ ...fields, requestId }, message)
  }
}

/** Maps what packages and Node throw to the codes of the HTTP contract. */
export function toAppError(thrown: unknown): AppError {
  if (thrown instanceof AppError) return thrown
  if (isOutOfFiles(thrown))
    return overloaded('Too many files and connections are open: try again later', undefined, thrown)
  if (thrown instanceof PoolError) return fromPoolError(thrown)
  return new AppError('internal', 'Something went wrong on our side', { cause: thrown })
}

function fromPoolError({ code, message, retryAfterMs }: PoolError): AppError {
  if (code === 'overloaded') return overloaded(message, retryAfterMs)
  const options = retryAfterMs === undefined ? {} : { retryAfter: Math.ceil(retryAfterMs / 1_000) }
  return withoutStack(() => new AppError(code, message, options))
}

const isOutOfFiles = (thrown: unknown) =>
  thrown instanceof Error &&
  ['EMFILE', 'ENFILE'].includes((thrown as NodeJS.ErrnoException).code ?? '')

const reason = ({ cause }: AppError) => (cause instanceof Error ? cause.message : undefined)
