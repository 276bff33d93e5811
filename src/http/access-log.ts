import type { MiddlewareHandler } from 'hono'
import { routePath } from 'hono/route'
import type { Log } from '../log.ts'
import { type Env, requestIdOf } from './env.ts'

export interface RequestRecord {
  method: string
  /** The pattern that matched, `/v1/products/:id`: few in number, unlike paths. */
  route: string
  status: number
  ms: number
}

/** Gives the request its id, and writes one line about it when it is done; the metrics observe the same record. */
export function accessLog(log: Log, observe: (record: RequestRecord) => void): MiddlewareHandler<Env> {
  // A child logger has its fields serialised already, and there are only so many routes and statuses.
  const children = new Map<string, Log>()
  const childFor = (method: string, route: string, status: number) => {
    const key = `${method} ${route} ${status}`
    const child = children.get(key) ?? log.child({ method, route, status })
    children.set(key, child)
    return child
  }

  return async (c, next) => {
    const startedAt = performance.now()
    const requestId = requestIdOf(c)
    c.set('requestId', requestId)
    await next()
    const ms = Math.round((performance.now() - startedAt) * 1_000) / 1_000
    const { method } = c.req
    const { status } = c.res
    const route = routePath(c, -1)
    observe({ method, route, status, ms })
    childFor(method, route, status).info({ ms, requestId }, 'request')
  }
}
