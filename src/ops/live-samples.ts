import { performance } from 'node:perf_hooks'
import { z } from '@hono/zod-openapi'
import type { Block } from '@offloop/loopwatch/blocking-frame'
import type { Watchdog } from '@offloop/loopwatch/watchdog'
import type { ItemCounts, Pool, WorkerState } from '@offloop/workpool/pool'
import { createRouter, json } from '../http/router.ts'
import type { Log } from '../log.ts'
import { event } from '../realtime/event.ts'
import type { Realtime } from '../realtime/realtime.ts'
import type { EndedTask } from './live-spans.ts'
import { type Metrics, trackUtilization } from './metrics.ts'
import { ByName, Durations, Recent } from './recent.ts'

/** The topic of the live page. */
export const OPS = 'ops'

const SAMPLE_EVERY_MS = 1_000
const MAX_SAMPLES = 600
const MAX_WORKERS = 64
const MAX_BLOCKS = 5
const MAX_KEPT_BLOCKS = 300
const MAX_KINDS = 50
/** In characters. */
const MAX_TEXT = 200
const MINUTE_MS = 60_000
const KEPT_MINUTES = 10
const RATE_READS = 6

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

const WorkerSchema = z
  .object({
    name: z.string(),
    task: z.string().nullable(),
    busy: z.number().describe('Share of the second in which it ran tasks, 0 to 1'),
    memoryBytes: Count.nullable().describe('Used heap of a thread, resident memory of a process'),
  })
  .openapi('Worker')

const TaskKindSchema = z
  .object({
    task: z.string().describe('`other` for those beyond the first 50 kinds'),
    queued: Count,
    running: Count,
    done: Count.describe('In the last ten minutes'),
    failed: Count.describe('In the last ten minutes'),
    perSecond: z.number().describe('Done and failed, in the last seconds'),
    medianMs: Milliseconds.nullable().describe('Run time of those that were done'),
  })
  .openapi('TaskKind')

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
        threads: z.array(WorkerSchema),
        processes: z.array(WorkerSchema),
        kinds: z.array(TaskKindSchema),
      })
      .describe(
        'tasks that are `queued` and `running`; the first 64 `threads` and child `processes` ' +
          'with `name`, `task`, `busy` and `memoryBytes`; numbers of tasks by kind (`kinds`)',
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

export type OpsSample = z.infer<typeof Sample>

export const ProcessId = z.string().describe('whose it is, as in `GET /v1/ops/processes`')

export const opsSample = event('ops.sample', {
  topic: OPS,
  when: 'Once a second, from each process. The last ten minutes of one are at `GET /v1/ops`.',
  payload: z.object({ process: ProcessId, ...Sample.shape }),
})

interface Parts {
  processId: string
  metrics: Pick<Metrics, 'requestCount'>
  watchdog: Pick<Watchdog, 'readDelay'>
  compute: Pick<Pool, 'queued' | 'running' | 'workerStates' | 'measureMemory' | 'countItems'>
  database: { semaphore: { permits: number; inUse: number }; waiting: number }
  realtime: Pick<Realtime, 'connections' | 'hasSubscribers' | 'emitLatest'>
  log: Pick<Log, 'warn'>
}

/** Keeps ten minutes of samples, and publishes new ones. */
export class LiveSamples {
  /** Oldest first; only the newest has workers and kinds. */
  readonly all: OpsSample[] = []
  #blocks: Block[] = []
  readonly #kinds = new TaskKinds()
  #blockCount = 0

  observeBlock(block: Block): void {
    this.#blockCount++
    this.#blocks = [...this.#blocks, block]
      .sort((one, other) => other.blockedMs - one.blockedMs)
      .slice(0, MAX_BLOCKS)
  }

  observeTask(ended: EndedTask): void {
    this.#kinds.observe(ended)
  }

  start(parts: Parts): () => void {
    const { processId, realtime, log } = parts
    const sample = this.#sampler(parts)
    return every(
      SAMPLE_EVERY_MS,
      () => {
        const latest = sample()
        this.#keep(latest)
        if (realtime.hasSubscribers(OPS))
          realtime.emitLatest(OPS, opsSample, { process: processId, ...latest })
      },
      // Reading memory usage fails without a free file descriptor.
      (error) => log.warn({ err: error }, 'A sample for the live page failed'),
    )
  }

  #keep(latest: OpsSample) {
    const { all } = this
    const previous = all.pop()
    if (previous) {
      const { queued, running } = previous.compute
      const compute = { queued, running, threads: [], processes: [], kinds: [] }
      all.push({ ...previous, compute })
    }
    all.push(latest)
    if (all.length > MAX_SAMPLES) all.shift()
    let blocks = 0
    for (const sample of all.toReversed()) {
      blocks += sample.blocks.length
      if (blocks > MAX_KEPT_BLOCKS) sample.blocks = []
    }
  }

  /** The function samples the time since its last call. */
  #sampler({ metrics, watchdog, compute, database, realtime }: Parts): () => OpsSample {
    const readUtilization = trackUtilization()
    const readWorkers = workerReader(compute)
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
          ...readWorkers(elapsedMs),
          kinds: this.#kinds.read(compute.countItems(), performance.timeOrigin + now),
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

function workerReader(compute: Parts['compute']) {
  let busyMs = new Map<string, number>()
  return (elapsedMs: number) => {
    const workers = compute.workerStates()
    const toWorker = (worker: WorkerState) => {
      const newMs = worker.busyMs - (busyMs.get(worker.name) ?? 0)
      return {
        name: worker.name,
        task: worker.running?.task.slice(0, MAX_TEXT) ?? null,
        busy: round(Math.max(0, Math.min(newMs / elapsedMs, 1))),
        memoryBytes: worker.memoryBytes ?? null,
      }
    }
    const read = (wanted: WorkerState['kind']) =>
      workers
        .filter(({ kind }) => kind === wanted)
        .slice(0, MAX_WORKERS)
        .map(toWorker)
    const state = { threads: read('thread'), processes: read('process') }
    busyMs = new Map(workers.map(({ name, busyMs }) => [name, busyMs]))
    compute.measureMemory()
    return state
  }
}

class TaskKinds {
  readonly #kinds = new ByName(MAX_KINDS - 1, () => new TaskKind())

  observe({ task, outcome, items, runMs, endedAt }: EndedTask): void {
    if (outcome === 'cancelled') return
    const kind = this.#kinds.find(task, endedAt)
    const slice = kind.recent.current(endedAt)
    if (outcome === 'succeeded') slice.runTimes.add(runMs / items, items)
    else slice.failed++
    kind.ended += outcome === 'succeeded' ? items : 1
  }

  read(counts: ItemCounts, now: number): OpsSample['compute']['kinds'] {
    const waiting = new Map<TaskKind, { queued: number; running: number }>()
    for (const [task, { queued, running }] of counts) {
      const kind = this.#kinds.find(task, now)
      // Keeps its name while it waits.
      kind.recent.current(now)
      const sum = waiting.get(kind) ?? { queued: 0, running: 0 }
      waiting.set(kind, { queued: sum.queued + queued, running: sum.running + running })
    }
    return [...this.#kinds].flatMap(([task, kind]) => {
      const { queued, running } = waiting.get(kind) ?? { queued: 0, running: 0 }
      const { done, failed, medianMs } = kind.read(now)
      const perSecond = round(kind.rate.read(kind.ended, now))
      if (queued + running + done + failed === 0) return []
      return [{ task: task.slice(0, MAX_TEXT), queued, running, done, failed, perSecond, medianMs }]
    })
  }
}

class TaskKind {
  readonly recent = new Recent(MINUTE_MS, KEPT_MINUTES, () => ({
    runTimes: new Durations(),
    failed: 0,
  }))
  readonly rate = new Rate()
  ended = 0

  read(now: number) {
    const slices = this.recent.read(now)
    const runTimes = Durations.sum(slices.map(({ runTimes }) => runTimes))
    return {
      done: runTimes.count,
      failed: slices.reduce((sum, { failed }) => sum + failed, 0),
      medianMs: runTimes.count > 0 ? round(runTimes.percentile(0.5)) : null,
    }
  }

  isEmpty(now: number): boolean {
    return this.recent.isEmpty(now)
  }
}

class Rate {
  readonly #reads: { total: number; at: number }[] = []

  read(total: number, at: number): number {
    const reads = this.#reads
    reads.push({ total, at })
    if (reads.length > RATE_READS) reads.shift()
    const [first = { total, at }] = reads
    return at > first.at ? ((total - first.total) * 1_000) / (at - first.at) : 0
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

export function sampleRoutes(samples: LiveSamples, processId: string, databaseVersion: string) {
  const { node, v8 } = process.versions
  const versions = { node, v8, database: databaseVersion }
  const router = createRouter()
  router.openapi({
    method: 'get',
    path: '/',
    operationId: 'readOps',
    access: 'operate',
    summary: 'Read the last ten minutes of the process that answers',
    description:
      'The payloads of `ops.sample`, second by second, oldest first. Only the last one has ' +
      '`threads`, `processes` and `kinds`.',
    responses: {
      200: json(
        z
          .object({
            process: ProcessId,
            versions: z.object({ node: z.string(), v8: z.string(), database: z.string() }),
            samples: z.array(Sample),
          })
          .openapi('Ops'),
        'At most 600 samples',
      ),
    },
    handler: (c) =>
      c.json({ process: processId, versions, samples: samples.all }, 200, {
        'Cache-Control': 'no-store',
      }),
  })
  return router
}
