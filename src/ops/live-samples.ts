import { performance } from 'node:perf_hooks'
import { z } from '@hono/zod-openapi'
import type { Block } from '@offloop/loopwatch/blocking-frame'
import type { Watchdog } from '@offloop/loopwatch/watchdog'
import { createRouter, json } from '../http/router.ts'
import type { Log } from '../log.ts'
import { event } from '../realtime/event.ts'
import type { Realtime } from '../realtime/realtime.ts'
import { type Metrics, trackUtilization } from './metrics.ts'

/** The topic of the live page. */
export const OPS = 'ops'

const SAMPLE_EVERY_MS = 1_000
const MAX_SAMPLES = 120
const MAX_THREADS = 64
const MAX_BLOCKS = 5
/** In characters. */
const MAX_TEXT = 200

const Milliseconds = z.number().min(0)
const Count = z.int().min(0)

const BlockSchema = z
  .object({
    at: z.number().describe('When it began, in milliseconds since the epoch'),
    blockedMs: Milliseconds,
    function: z.string().optional().describe('Absent, with `file` and `line`, if not sampled'),
    file: z.string().optional(),
    line: z.int().optional(),
    inNativeCall: z.literal(true).optional(),
    requestId: z.string().optional(),
    route: z.string().optional(),
  })
  .openapi('Block')

const Sample = z
  .object({
    at: z.int().describe('end of the second, in milliseconds since the epoch'),
    loop: z
      .object({
        p50: Milliseconds,
        p99: Milliseconds,
        max: Milliseconds,
        withoutCoreMs: Milliseconds,
        utilization: z.number(),
        blockCount: Count,
      })
      .describe(
        'delay of the event loop in ms: `p50`, `p99`, `max`, each without the time for which no ' +
          'core was available, `withoutCoreMs`; its `utilization` from 0 to 1; `blockCount`',
      ),
    blocks: z
      .array(BlockSchema)
      .describe(
        'the longest blocks of the event loop, in their order, with `function`, `file`, `line`, ' +
          '`route` and more',
      ),
    http: z.object({ requestsPerSecond: z.number() }).describe('`requestsPerSecond`'),
    compute: z
      .object({
        queued: Count,
        running: Count,
        threads: z.array(z.object({ name: z.string(), task: z.string().nullable() })),
      })
      .describe(
        'tasks that are `queued` and `running`; the first 64 `threads` with `name` and `task`',
      ),
    database: z
      .object({ size: Count, inUse: Count, waiting: Count })
      .describe("the pool's `size`, connections `inUse`, requests `waiting` for one"),
    memory: z
      .object({ rss: Count, heapUsed: Count, heapTotal: Count, external: Count })
      .describe('`rss`, `heapUsed`, `heapTotal`, `external` in bytes'),
    cpu: z.number().describe('cores in use, all threads together'),
    uptime: Milliseconds.describe('in ms'),
    sockets: Count.describe('connected clients'),
  })
  .openapi('OpsSample')

/** One second of the process. */
export type OpsSample = z.infer<typeof Sample>

export const opsSample = event('ops.sample', {
  topic: OPS,
  when: 'Once a second. The last two minutes are at `GET /v1/ops`.',
  payload: Sample,
})

interface Parts {
  metrics: Pick<Metrics, 'requestCount'>
  watchdog: Pick<Watchdog, 'readDelay'>
  compute: { queued: number; running: number; threadStates(): OpsSample['compute']['threads'] }
  database: { semaphore: { permits: number; inUse: number }; waiting: number }
  realtime: Pick<Realtime, 'connections' | 'hasSubscribers' | 'emitLatest'>
  log: Pick<Log, 'warn'>
}

/** Keeps two minutes of samples, and publishes new ones. */
export class LiveSamples {
  /** Oldest first. */
  readonly all: OpsSample[] = []
  #blocks: Block[] = []
  #blockCount = 0

  /** Keeps the longest blocks for the next sample. */
  observeBlock(block: Block): void {
    this.#blockCount++
    this.#blocks = [...this.#blocks, block]
      .sort((one, other) => other.blockedMs - one.blockedMs)
      .slice(0, MAX_BLOCKS)
  }

  /** Takes a sample once a second. */
  start(parts: Parts): () => void {
    const { realtime, log } = parts
    const sample = this.#sampler(parts)
    return every(
      SAMPLE_EVERY_MS,
      () => {
        const latest = sample()
        this.all.push(latest)
        if (this.all.length > MAX_SAMPLES) this.all.shift()
        if (realtime.hasSubscribers(OPS)) realtime.emitLatest(OPS, opsSample, latest)
      },
      // Reading memory usage fails without a free file descriptor.
      (error) => log.warn({ err: error }, 'A sample for the live page failed'),
    )
  }

  /** The function samples the time since its last call. */
  #sampler({ metrics, watchdog, compute, database, realtime }: Parts): () => OpsSample {
    const readUtilization = trackUtilization()
    let sampledAt = performance.now()
    let requestCount = metrics.requestCount
    let cpu = process.cpuUsage()
    return () => {
      const { rss, heapUsed, heapTotal, external } = process.memoryUsage()
      const now = performance.now()
      const elapsedMs = now - sampledAt
      const { user, system } = process.cpuUsage(cpu)
      const requests = metrics.requestCount - requestCount
      const blocks = this.#blocks.map(shorten).sort((one, other) => one.at - other.at)
      const blockCount = this.#blockCount
      sampledAt = now
      requestCount += requests
      cpu = process.cpuUsage()
      this.#blocks = []
      this.#blockCount = 0
      return {
        at: Math.round(performance.timeOrigin + now),
        loop: { ...watchdog.readDelay(), utilization: round(readUtilization()), blockCount },
        blocks,
        http: { requestsPerSecond: round((requests * 1_000) / elapsedMs) },
        compute: {
          queued: compute.queued,
          running: compute.running,
          threads: compute.threadStates().slice(0, MAX_THREADS),
        },
        database: {
          size: database.semaphore.permits,
          inUse: database.semaphore.inUse,
          waiting: database.waiting,
        },
        memory: { rss, heapUsed, heapTotal, external },
        cpu: round((user + system) / 1_000 / elapsedMs),
        uptime: Math.round(now),
        sockets: realtime.connections,
      }
    }
  }
}

/** An exception, which would end the process in a plain timer, goes to `onError`. */
export function every(ms: number, act: () => void, onError: (error: unknown) => void) {
  const attempt = () => {
    try {
      act()
    } catch (error) {
      onError(error)
    }
  }
  const timer = setInterval(attempt, ms).unref()
  return () => clearInterval(timer)
}

/** The end of a path says more than its beginning. */
const shorten = (block: Block): Block => ({
  ...block,
  ...(block.function !== undefined && { function: block.function.slice(0, MAX_TEXT) }),
  ...(block.file !== undefined && { file: block.file.slice(-MAX_TEXT) }),
  ...(block.route !== undefined && { route: block.route.slice(0, MAX_TEXT) }),
})

/** To three decimal places. */
export const round = (value: number) => Math.round(value * 1_000) / 1_000

/** `/v1/ops`: past samples. */
export function opsRoutes(samples: LiveSamples, databaseVersion: string) {
  const { node, v8 } = process.versions
  const versions = { node, v8, database: databaseVersion }
  const router = createRouter()
  router.openapi({
    method: 'get',
    path: '/',
    operationId: 'readOps',
    access: 'operate',
    summary: 'Read the last two minutes of the process',
    description: 'The payloads of `ops.sample`, second by second, oldest first.',
    responses: {
      200: json(
        z
          .object({
            versions: z.object({ node: z.string(), v8: z.string(), database: z.string() }),
            samples: z.array(Sample),
          })
          .openapi('Ops'),
        'At most 120 samples',
      ),
    },
    handler: (c) =>
      c.json({ versions, samples: samples.all }, 200, { 'Cache-Control': 'no-store' }),
  })
  return router
}
