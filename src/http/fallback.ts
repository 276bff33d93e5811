import type { Hono, NotFoundHandler } from 'hono'
import { AppError } from '../errors.ts'
import type { Env } from './env.ts'
import { requestIdOf } from './exchange.ts'
import { problemResponse } from './problem.ts'

/** Where middleware is registered: for every path, sometimes under a method. */
const MIDDLEWARE = '/*'

const METHODS = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE']

/**
 * Answers what no route did: 405 with `Allow` where the path exists under another method, else 404.
 */
export const fallback =
  (app: Hono<Env>): NotFoundHandler<Env> =>
  (c) => {
    const { method, path } = c.req
    const allow = allowedMethods(app, path)
    if (allow.length === 0)
      return problemResponse(
        new AppError('not_found', `There is nothing at ${path}`),
        path,
        requestIdOf(c),
      )
    const headers = { Allow: allow.join(', ') }
    if (method === 'OPTIONS') return new Response(null, { status: 204, headers })
    return problemResponse(
      new AppError('method_not_allowed', `${path} does not take ${method}`, { headers }),
      path,
      requestIdOf(c),
    )
  }

function allowedMethods(app: Hono<Env>, path: string): string[] {
  const methods = METHODS.filter((method) =>
    app.router
      .match(method, path)[0]
      .some(([[, route]]) => route.method === method && route.path !== MIDDLEWARE),
  )
  if (methods.length === 0) return []
  return methods.includes('GET') ? [...methods, 'HEAD', 'OPTIONS'] : [...methods, 'OPTIONS']
}
