import { randomUUID } from 'node:crypto'
import type { MiddlewareHandler } from 'hono'
import type { Env } from './env.ts'
import { setHeaders } from './headers.ts'

/** Ids from outside are kept only if they are safe to log and to send back. */
const ACCEPTABLE = /^[\w.:-]{1,128}$/

/** Takes the caller's `X-Request-Id` or makes one, and answers with it. */
export const requestId: MiddlewareHandler<Env> = (c, next) => {
  const given = c.req.header('x-request-id')
  const id = given !== undefined && ACCEPTABLE.test(given) ? given : randomUUID()
  c.set('requestId', id)
  setHeaders(c, { 'X-Request-Id': id })
  return next()
}
