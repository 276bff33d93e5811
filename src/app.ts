import type { Config } from './config.ts'
import { type Deps, events, featureRoutes, uploads } from './features/index.ts'
import { accessLog } from './http/access-log.ts'
import { bodyLimit } from './http/body-limit.ts'
import { cors } from './http/cors.ts'
import { serveDocs } from './http/docs.ts'
import { beginExchange, refuseUnserved } from './http/exchange.ts'
import { fallback } from './http/fallback.ts'
import { healthRoutes } from './http/health.ts'
import { servePage } from './http/page.ts'
import { errorHandler } from './http/problem.ts'
import type { Readiness } from './http/readiness.ts'
import { createRouter } from './http/router.ts'
import type { Metrics } from './ops/metrics.ts'
import { opsRoutes } from './ops/routes.ts'
import type { Sampler } from './ops/sampler.ts'

const MAX_BODY_BYTES = 1024 * 1024

export interface AppDeps extends Deps {
  config: Pick<Config['http'], 'corsOrigins' | 'requestTimeoutMs'>
  metrics: Metrics
  readiness: Readiness
  sampler: Sampler
}

/**
 * The HTTP side of the service, without a socket: `app.request('/v1/products/1')` works as it is.
 */
export function createApp({ config, metrics, readiness, sampler, ...deps }: AppDeps) {
  const { log } = deps
  const app = createRouter()
  app.onError(errorHandler(log))
  app.notFound(fallback(app))

  const logRequest = accessLog(log)
  app.use(
    beginExchange(config.requestTimeoutMs, (records) => {
      sampler.countRequests(records.length)
      for (const record of records) metrics.observeRequest(record)
      for (const record of records) logRequest(record)
    }),
  )
  if (config.corsOrigins.length > 0) app.use(cors(config.corsOrigins))
  app.use(refuseUnserved)
  app.on(['POST', 'PUT', 'PATCH', 'DELETE'], '*', bodyLimit(MAX_BODY_BYTES, uploads))

  for (const [path, routes] of Object.entries(featureRoutes(deps))) app.route(path, routes)
  app.route('/v1/ops', opsRoutes({ sampler, databaseVersion: deps.database.serverVersion }))
  app.route('/health', healthRoutes(readiness))
  app.get('/metrics', async (c) =>
    c.body(await metrics.page(), 200, { 'Content-Type': metrics.contentType }),
  )
  serveDocs(app, events)
  servePage(app)
  return app
}
