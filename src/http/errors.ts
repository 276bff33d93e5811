import { STATUS_CODES } from 'node:http'
import { z } from '@hono/zod-openapi'
import { JobError } from '@offloop/jobs/errors'
import { ProfileError } from '@offloop/loopwatch/profile'
import { PoolError } from '@offloop/workpool/errors'
import type { ErrorHandler, Hono, NotFoundHandler } from 'hono'
import { methodNotAllowed } from 'hono/method-not-allowed'
import { AppError, ERROR_CODES, overloaded, withoutStack } from '../errors.ts'
import { type Log, Repeats } from '../log.ts'
import { type Env, getContext } from './context.ts'
import type { AppResponse } from './headers.ts'

/** The body of every error response: RFC 9457 and a `code` for programs. */
export const Problem = z.strictObject({
  type: z.literal('about:blank'),
  title: z.string(),
  status: z.int(),
  detail: z.string(),
  instance: z.string().openapi({ description: 'The path of the request' }),
  code: z.enum(ERROR_CODES),
  requestId: z.string().optional(),
  errors: z
    .array(z.strictObject({ path: z.string(), message: z.string() }))
    .optional()
    .openapi({ description: 'With `invalid`: each part of the input that is wrong' }),
})

export function toProblem(
  { code, status, message: detail, errors }: AppError,
  instance: string,
  requestId?: string,
) {
  const title = STATUS_CODES[status] ?? 'Client Closed Request'
  return { type: 'about:blank', title, status, detail, instance, code, requestId, errors }
}

function encodeProblem(error: AppError, instance: string, requestId?: string) {
  const body = JSON.stringify(toProblem(error, instance, requestId))
  return {
    body,
    headers: {
      'Content-Type': 'application/problem+json',
      'Content-Length': String(Buffer.byteLength(body)),
      'Cache-Control': 'no-store',
      ...error.headers,
    },
  }
}

export function problemResponse(error: AppError, instance: string, requestId?: string): Response {
  const { body, headers } = encodeProblem(error, instance, requestId)
  return new Response(body, { status: error.status, headers })
}

/** Writes an error that occurs before the app. */
export function writeProblem(outgoing: AppResponse, error: AppError): void {
  const { body, headers } = encodeProblem(error, outgoing.req.url ?? '', outgoing.requestId)
  outgoing.shouldKeepAlive = false
  outgoing.writeHead(error.status, headers).end(body)
}

/** Encodes a response to bytes that are no valid request. */
export function problemBytes(error: AppError): string {
  const { body, headers } = encodeProblem(error, '')
  const lines = Object.entries({ ...headers, Connection: 'close' }).map((pair) => pair.join(': '))
  const statusLine = `HTTP/1.1 ${error.status} ${STATUS_CODES[error.status]}`
  return [statusLine, ...lines, '', body].join('\r\n')
}

/** Answers 404, 405, or 204 to OPTIONS. Elsewhere, Hono's middleware would cost every request. */
export function notFound(app: Hono<Env>): NotFoundHandler<Env> {
  const allowMethods = methodNotAllowed({
    app,
    onMethodNotAllowed: (c, methods) => {
      const { method, path } = c.req
      const headers = { Allow: [...methods, 'OPTIONS'].join(', ') }
      if (method === 'OPTIONS') return new Response(null, { status: 204, headers })
      const message = `${path} does not take ${method}`
      const error = new AppError('method_not_allowed', message, { headers })
      return problemResponse(error, path, getContext(c).requestId)
    },
  })
  return async (c) => {
    const error = new AppError('not_found', `There is nothing at ${c.req.path}`)
    c.res = problemResponse(error, c.req.path, getContext(c).requestId)
    await allowMethods(c, async () => {})
    return c.res
  }
}

export const errorHandler = (log: Log): ErrorHandler<Env> => {
  const repeats = new Repeats()
  return (thrown, c) => {
    const error = toAppError(thrown)
    const { code, status, message, cause } = error
    const { requestId } = getContext(c)
    const fields = { code, reason: cause instanceof Error ? cause.message : undefined }
    const logOthers = (refused: number) => log.warn({ ...fields, refused }, message)
    if (code === 'internal') log.error({ err: thrown, requestId }, 'Request failed')
    else if (status >= 500)
      if (status !== 503 || repeats.isFirst(`${message} ${fields.reason}`, logOthers))
        log.warn({ ...fields, requestId }, message)
    return problemResponse(error, c.req.path, requestId)
  }
}

/** Maps errors of packages and Node to the HTTP contract. */
export function toAppError(thrown: unknown): AppError {
  if (thrown instanceof AppError) return thrown
  if (thrown instanceof JobError || thrown instanceof ProfileError)
    return new AppError(thrown.code, thrown.message, { cause: thrown })
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
