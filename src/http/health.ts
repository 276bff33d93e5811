import { createRoute, z } from '@hono/zod-openapi'
import { AppError } from '../errors.ts'
import { createRouter } from './router.ts'

const CHECK_TIMEOUT_MS = 1_000

export interface HealthOptions {
  /** Rejects when the service cannot do its work. */
  check: (signal: AbortSignal) => Promise<void>
  stopping: AbortSignal
}

const Health = z.object({ status: z.literal('ok') }).openapi('Health')
const ok = { description: 'It does', content: { 'application/json': { schema: Health } } }

const live = createRoute({
  method: 'get',
  path: '/live',
  tags: ['operations'],
  summary: 'Does the process run? If not, restart it',
  responses: { 200: ok },
})

const ready = createRoute({
  method: 'get',
  path: '/ready',
  tags: ['operations'],
  summary: 'Should it get traffic? Not without its database, nor while it stops',
  responses: { 200: ok, 503: { description: 'Not now' } },
})

/** `/health/live` and `/health/ready`, for whoever restarts processes and routes traffic. */
export function healthRoutes({ check, stopping }: HealthOptions) {
  const router = createRouter()
  const checkOnce = shared(() => check(AbortSignal.timeout(CHECK_TIMEOUT_MS)))

  router.openapi(live, (c) => c.json({ status: 'ok' } as const, 200))

  router.openapi(ready, async (c) => {
    if (stopping.aborted) throw new AppError('unavailable', 'The service is stopping')
    await checkOnce().catch((cause) => {
      throw cause instanceof AppError ? cause : new AppError('unavailable', 'The database does not answer', { cause })
    })
    return c.json({ status: 'ok' } as const, 200)
  })

  return router
}

/** However many ask at once, the check runs once. */
function shared(check: () => Promise<void>): () => Promise<void> {
  let running: Promise<void> | undefined
  return () => {
    running ??= check().finally(() => {
      running = undefined
    })
    return running
  }
}
