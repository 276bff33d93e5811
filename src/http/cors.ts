import type { MiddlewareHandler } from 'hono'
import { cors as honoCors } from 'hono/cors'
import type { AppContext, Env } from './context.ts'

/**
 * What a page's script may read besides the few headers that it always may: all that answers of
 * ours carry.
 */
const EXPOSED_HEADERS = [
  'Accept-Encoding',
  'Allow',
  'Content-Disposition',
  'ETag',
  'Location',
  'Retry-After',
  'X-Request-Id',
]

/**
 * Lets pages of these origins in. An OPTIONS request that is no preflight goes on to the app, which
 * knows its methods.
 */
export function cors(origins: string[]): MiddlewareHandler<Env> {
  const answer = honoCors({ origin: origins, exposeHeaders: EXPOSED_HEADERS })
  return (c, next) => (c.req.method === 'OPTIONS' && !isPreflight(c) ? next() : answer(c, next))
}

/**
 * What makes an OPTIONS request a preflight: https://fetch.spec.whatwg.org/#cors-preflight-request.
 */
const isPreflight = ({ req }: AppContext) =>
  Boolean(req.header('origin') && req.header('access-control-request-method'))
