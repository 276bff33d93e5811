import { createRoute, z } from '@hono/zod-openapi'
import { createRouter, json } from '../http/router.ts'
import { OpsSample } from './contract.ts'
import type { Sampler } from './sampler.ts'

export interface OpsOptions {
  sampler: Sampler
  databaseVersion: string
}

/**
 * `/v1/ops`: the past that a page which has just been opened, or came back, needs besides the
 * events.
 */
export function opsRoutes({ sampler, databaseVersion }: OpsOptions) {
  const router = createRouter()
  const versions = {
    node: process.versions.node,
    v8: process.versions.v8,
    database: databaseVersion,
  }

  router.openapi(read, (c) =>
    c.json({ versions, samples: [...sampler.samples] }, 200, { 'Cache-Control': 'no-store' }),
  )

  return router
}

const Ops = z
  .object({
    versions: z.object({ node: z.string(), v8: z.string(), database: z.string() }),
    samples: z.array(OpsSample),
  })
  .openapi('Ops')

const read = createRoute({
  method: 'get',
  path: '/',
  tags: ['operations'],
  operationId: 'readOps',
  summary: 'How the process did in the last two minutes, second by second',
  description: 'What `ops.sample` told, oldest first.',
  responses: { 200: json(Ops, 'At most 120 samples') },
})
