import { STATUS_CODES } from 'node:http'
import type { ErrorHandler } from 'hono'
import { AppError } from '../errors.ts'
import type { Log } from '../log.ts'
import type { Env } from './env.ts'
import { requestIdOf } from './exchange.ts'

/** The body of every error answer: https://www.rfc-editor.org/rfc/rfc9457 with a code that programs can switch on. */
export const problemOf = ({ code, status, message, errors }: AppError, instance: string, requestId?: string) => ({
  type: 'about:blank',
  title: STATUS_CODES[status] ?? 'Client Closed Request',
  status,
  detail: message,
  instance,
  code,
  requestId,
  errors,
})

/** Answers with a problem. Safe at any point of a request: it needs nothing that a middleware sets. */
export const problemResponse = (error: AppError, instance: string, requestId?: string) =>
  new Response(JSON.stringify(problemOf(error, instance, requestId)), {
    status: error.status,
    headers: { 'Content-Type': 'application/problem+json', 'Cache-Control': 'no-store', ...error.headers },
  })

/** Turns whatever a handler threw into a problem, and logs what an operator must see. */
export const errorHandler =
  (log: Log): ErrorHandler<Env> =>
  (thrown, c) => {
    const error = toAppError(thrown)
    const requestId = requestIdOf(c)
    if (error.code === 'internal') log.error({ err: thrown, requestId }, 'A request failed')
    else if (error.status >= 500) log.warn({ code: error.code, reason: reasonOf(error), requestId }, error.message)
    return problemResponse(error, c.req.path, requestId)
  }

const toAppError = (thrown: unknown): AppError =>
  thrown instanceof AppError ? thrown : new AppError('internal', 'Something went wrong on our side', { cause: thrown })

const reasonOf = ({ cause }: AppError) => (cause instanceof Error ? cause.message : undefined)
