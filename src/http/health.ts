import { createRoute, z } from '@hono/zod-openapi'
import { AppError } from '../errors.ts'
import type { Readiness } from './readiness.ts'
import { createRouter, json } from './router.ts'

const Health = z.object({ status: z.literal('ok') }).openapi('Health')
const ok = json(Health, 'It does')

const live = createRoute({
  method: 'get',
  path: '/live',
  tags: ['operations'],
  operationId: 'isLive',
  summary: 'Does the process run? If not, restart it',
  responses: { 200: ok },
})

const ready = createRoute({
  method: 'get',
  path: '/ready',
  tags: ['operations'],
  operationId: 'isReady',
  summary: 'Should it get traffic? Not without its database, nor while it stops',
  responses: { 200: ok, 503: { description: 'Not now' } },
})

/** `/health/live` and `/health/ready`, for whoever restarts processes and routes traffic. */
export function healthRoutes(readiness: Readiness) {
  const router = createRouter()

  router.openapi(live, (c) => c.json({ status: 'ok' } as const, 200))

  router.openapi(ready, async (c) => {
    const answer = await readiness.find()
    if (!answer.ready) throw new AppError('unavailable', answer.reason, { cause: answer.cause })
    return c.json({ status: 'ok' } as const, 200)
  })

  return router
}
