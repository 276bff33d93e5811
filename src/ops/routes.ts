import { createRoute, z } from '@hono/zod-openapi'
import { createRouter, json } from '../http/router.ts'
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

const Milliseconds = z.number().min(0)
const Count = z.int().min(0)

const Incident = z
  .object({
    at: z.number().openapi({ description: 'Milliseconds since the epoch' }),
    heldMs: Milliseconds,
    function: z.string(),
    file: z.string(),
    line: z.int(),
    requestId: z.string().optional(),
    route: z.string().optional(),
  })
  .openapi('Incident')

const Sample = z
  .object({
    at: z.int().openapi({ description: 'The end of that second, in milliseconds since the epoch' }),
    loop: z.object({
      p50: Milliseconds,
      p99: Milliseconds,
      max: Milliseconds,
      utilization: z.number(),
    }),
    incidents: z.array(Incident),
    http: z.object({ requestsPerSecond: z.number() }),
    compute: z.object({
      queued: Count,
      running: Count,
      threads: z.array(z.object({ name: z.string(), task: z.string().nullable() })),
    }),
    database: z.object({ size: Count, inUse: Count, waiting: Count }),
    memory: z.object({ rss: Count, heapUsed: Count, heapTotal: Count, external: Count }),
    cpu: z.number(),
    uptime: Milliseconds,
    sockets: Count,
  })
  .openapi('OpsSample')

const Ops = z
  .object({
    versions: z.object({ node: z.string(), v8: z.string(), database: z.string() }),
    samples: z.array(Sample),
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
