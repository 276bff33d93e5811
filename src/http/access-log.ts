import type { MiddlewareHandler } from 'hono'
import { routePath } from 'hono/route'
import type { Log } from '../log.ts'
import type { Env } from './env.ts'

export interface RequestRecord {
  method: string
  /** The pattern that matched, `/v1/products/:id`; bounded in number, unlike paths. */
  route: string
  status: number
  ms: number
}

/** One line a request, and the same record for the metrics. */
export const accessLog =
  (log: Log, observe: (record: RequestRecord) => void): MiddlewareHandler<Env> =>
  async (c, next) => {
    const startedAt = performance.now()
    await next()
    const ms = Math.round((performance.now() - startedAt) * 1_000) / 1_000
    const record = { method: c.req.method, route: routePath(c, -1), status: c.res.status, ms }
    observe(record)
    log.info({ ...record, requestId: c.var.requestId }, 'request')
  }
