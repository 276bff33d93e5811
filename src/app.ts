import type { Identify } from './access/identify.ts'
import { type AccessDeps, accessRoutes } from './access/routes.ts'
import { serveSignInLink } from './access/sign-in-link.ts'
import type { Deps, Feature } from './feature.ts'
import { bodyLimit } from './http/body.ts'
import { accessLog, getContext, requestContext } from './http/context.ts'
import { errorHandler, notFound } from './http/errors.ts'
import { allowOrigins } from './http/headers.ts'
import { serveDocs } from './http/openapi.ts'
import { createRouter, listAccess } from './http/router.ts'
import { servePage } from './http/static.ts'
import { type Live, opsEvents, opsRoutes } from './ops/live.ts'
import type { Processes } from './ops/processes.ts'
import type { Profiler } from './ops/profiles.ts'
import type { Tracing } from './ops/tracing.ts'

const MAX_BODY_BYTES = 1024 * 1024

interface AppDeps extends Deps {
  access: AccessDeps
  identify: Identify
  live: Live
  processes: Pick<Processes, 'list'>
  watchdog: Profiler
  tracing?: Tracing | undefined
}

/** Builds the HTTP app and starts nothing; tests call `app.request()`. */
export function createApp(deps: AppDeps, features: readonly Feature[]) {
  const { access, identify, log, metrics, live, tracing } = deps
  const { corsOrigins, requestTimeoutMs } = deps.config.http
  const app = createRouter()
  app.onError(errorHandler(log))
  app.notFound(notFound(app))

  const logRequest = accessLog(log)
  app.use(
    requestContext(
      requestTimeoutMs,
      (records) => {
        for (const record of records) metrics.observeRequest(record)
        live.requests.observe(records)
        records.forEach(logRequest)
        tracing?.observeRequests(records)
      },
      tracing?.startRequest,
    ),
  )
  if (corsOrigins.length > 0) app.use(allowOrigins(corsOrigins))
  const uploads = features.filter(({ takesUploads }) => takesUploads).map(({ path }) => path)
  const limitBody = bodyLimit(MAX_BODY_BYTES, uploads)
  // After CORS, so that other origins can read errors.
  app.use((c, next) => {
    const refusal = c.env?.outgoing?.refusal
    if (refusal) throw refusal
    getContext(c).limiter = access.limits
    const identifying = identify(c)
    return identifying ? identifying.then(() => limitBody(c, next)) : limitBody(c, next)
  })

  for (const { path, routes } of features) app.route(path, routes(deps))
  app.route('/v1', accessRoutes(access))
  if (deps.config.access.signInLink) serveSignInLink(app, access)
  app.route('/v1/ops', opsRoutes(deps))
  const events = [...features.flatMap(({ events = [] }) => events), ...opsEvents]
  serveDocs(app, events, deps.config.http.docsAccess)
  servePage(app)
  listAccess(app)
  return app
}
