import { performance } from 'node:perf_hooks'
import { z } from '@hono/zod-openapi'
import { createLRU } from 'lru.min'
import { isRoutine, type RequestRecord } from '../http/context.ts'
import { createRouter, json } from '../http/router.ts'
import type { Log } from '../log.ts'
import { event } from '../realtime/event.ts'
import type { Realtime } from '../realtime/realtime.ts'
import { every, OPS, ProcessId, round } from './live-samples.ts'
import type { EndedTask } from './live-spans.ts'
import { ByName, Durations, Recent } from './recent.ts'

const PUBLISH_EVERY_MS = 1_000
const MAX_LATEST = 200
const MAX_PER_EVENT = 50
const MAX_NAMES = 100
const MAX_TASKS_PER_REQUEST = 20

const ROUTE_SLICE_MS = 10_000
const ROUTE_SLICES = 6
const STATEMENT_SLICE_MS = 60_000
const STATEMENT_SLICES = 10

const Count = z.int().min(0)
const Milliseconds = z.number().min(0)

const TaskRuns = z.object({
  task: z.string(),
  outcome: z.string(),
  count: Count,
  queuedMs: Milliseconds.describe('The longest wait for a thread'),
  runMs: Milliseconds.describe('Time on threads, in sum'),
})

const LoggedRequest = z
  .object({
    startedAt: z.number().describe('In milliseconds since the epoch'),
    method: z.string(),
    route: z.string().describe('A pattern, such as `/v1/orders/:id`'),
    status: z.int(),
    ms: Milliseconds,
    requestId: z.string(),
    client: z.string().optional(),
    subject: z.string().optional(),
    statements: z
      .array(z.object({ text: z.string(), ms: Milliseconds.optional() }))
      .describe('The first 20, without values; one that still runs has no `ms`'),
    statementCount: Count,
    tasks: z.array(TaskRuns).describe('At most 20, by task and outcome'),
  })
  .openapi('LoggedRequest')

const RouteFigures = z.object({
  route: z.string().describe('Method and pattern'),
  count: Count,
  perSecond: z.number(),
  p50: Milliseconds.optional().describe('Of requests that were not refused'),
  p99: Milliseconds.optional(),
  errors: Count.describe('5xx other than 503'),
  refused: Count.describe('429 and 503'),
})

const StatementFigures = z.object({
  text: z.string().describe('Without values, cut at 200 characters'),
  count: Count,
  totalMs: Milliseconds,
  p50: Milliseconds,
  p99: Milliseconds,
  max: Milliseconds,
})

const Batch = z
  .object({
    process: ProcessId,
    routes: z
      .array(RouteFigures)
      .describe(
        'at most 100, with `perSecond`, `p50`, `p99`, `errors` and `refused` of the last minute',
      ),
    statements: z
      .array(StatementFigures)
      .describe(
        'at most 100, with `count`, `totalMs`, `p50`, `p99` and `max` of the last ten minutes',
      ),
    latest: z
      .array(LoggedRequest)
      .describe('new requests, the newest last, with their `statements` and `tasks`'),
    leftOut: Count.describe('further new requests, for which there was no room'),
  })
  .openapi('OpsRequests')

export type OpsRequests = z.infer<typeof Batch>
type Figures = Omit<OpsRequests, 'process'>

export const opsRequests = event('ops.requests', {
  topic: OPS,
  when:
    'Up to once a second from each process. Earlier requests of one are at ' +
    '`GET /v1/ops/requests`.',
  payload: Batch,
})

type RequestTask = Pick<
  EndedTask,
  'task' | 'outcome' | 'queuedMs' | 'runMs' | 'requestId' | 'items'
>

interface Parts {
  processId: string
  realtime: Pick<Realtime, 'hasSubscribers' | 'emitLatest'>
  log: Pick<Log, 'warn'>
}

/** What requests and SQL statements did lately, and how long it took. */
export class LiveRequests {
  readonly #openedAt = performance.now()
  readonly #routes = new ByName(MAX_NAMES, openRoute)
  readonly #statements = new ByName(
    MAX_NAMES,
    () => new Recent(STATEMENT_SLICE_MS, STATEMENT_SLICES, () => new Durations()),
  )
  readonly #ring: RequestRecord[] = []
  readonly #tasksByRequest = createLRU<string, z.infer<typeof TaskRuns>[]>({ max: 2 * MAX_LATEST })
  #logged = 0
  #published = 0
  #hasChanged = false

  start({ processId, realtime, log }: Parts): () => void {
    let slice = 0
    const publish = () => {
      const current = Math.floor(performance.now() / ROUTE_SLICE_MS)
      if (realtime.hasSubscribers(OPS) && (this.#hasChanged || slice !== current))
        realtime.emitLatest(OPS, opsRequests, {
          process: processId,
          ...this.#readSince(this.#published, MAX_PER_EVENT),
        })
      slice = current
      this.#published = this.#logged
      this.#hasChanged = false
    }
    return every(PUBLISH_EVERY_MS, publish, (error) =>
      log.warn({ err: error }, 'Requests for the live page failed'),
    )
  }

  observe(records: readonly RequestRecord[]): void {
    const now = performance.now()
    this.#hasChanged = true
    for (const record of records) {
      const { method, route, status, ms } = record
      const slice = this.#routes.find(`${method} ${route}`, now).current(now)
      if (status === 429 || status === 503) slice.refused++
      else slice.answered.add(ms)
      if (status >= 500 && status !== 503) slice.errors++
      if (!isRoutine(record)) this.#ring[this.#logged++ % MAX_LATEST] = record
    }
  }

  /** @param text without values. */
  addStatement(text: string, ms: number): void {
    const now = performance.now()
    this.#statements.find(text, now).current(now).add(ms)
    this.#hasChanged = true
  }

  observeTask({ task, outcome, queuedMs, runMs, requestId, items }: RequestTask): void {
    if (requestId === undefined) return
    const all = this.#tasksByRequest.get(requestId) ?? []
    if (all.length === 0) this.#tasksByRequest.set(requestId, all)
    const alike = all.find((other) => other.task === task && other.outcome === outcome)
    if (alike) {
      alike.count += items
      alike.queuedMs = Math.max(alike.queuedMs, queuedMs)
      alike.runMs += runMs
    } else if (all.length < MAX_TASKS_PER_REQUEST) {
      all.push({ task, outcome, count: items, queuedMs: Math.max(0, queuedMs), runMs })
    }
  }

  read(): Figures {
    return this.#readSince(Math.max(0, this.#logged - MAX_LATEST), MAX_LATEST)
  }

  #readSince(since: number, limit: number): Figures {
    const now = performance.now()
    const first = Math.max(since, this.#logged - limit)
    const windowMs = ROUTE_SLICES * ROUTE_SLICE_MS + (now % ROUTE_SLICE_MS)
    const seconds = Math.max(1_000, Math.min(windowMs, now - this.#openedAt)) / 1_000
    return {
      routes: recentByName(this.#routes, now)
        .map(([route, slices]) => toRouteFigures(route, slices, seconds))
        .sort((one, other) => other.count - one.count),
      statements: recentByName(this.#statements, now)
        .map(([text, slices]) => toStatementFigures(text, Durations.sum(slices)))
        .sort((one, other) => other.totalMs - one.totalMs),
      latest: Array.from({ length: this.#logged - first }, (_, index) =>
        this.#toLogged(this.#ring[(first + index) % MAX_LATEST] as RequestRecord),
      ),
      leftOut: first - since,
    }
  }

  #toLogged({
    background,
    hasCredentials,
    startedAt,
    statements,
    trace,
    ...record
  }: RequestRecord) {
    return {
      ...record,
      startedAt: round(startedAt),
      statements: statements.map(({ text, ms }) => ({ text, ms: ms && round(ms) })),
      tasks: (this.#tasksByRequest.get(record.requestId) ?? []).map(
        ({ queuedMs, runMs, ...task }) => ({
          ...task,
          queuedMs: round(queuedMs),
          runMs: round(runMs),
        }),
      ),
    }
  }
}

const recentByName = <Slice>(all: ByName<Recent<Slice>>, now: number) =>
  [...all].flatMap(([name, recent]): [string, Slice[]][] => {
    const slices = recent.read(now)
    return slices.length > 0 ? [[name, slices]] : []
  })

const openRoute = () =>
  new Recent(ROUTE_SLICE_MS, ROUTE_SLICES, () => ({
    answered: new Durations(),
    errors: 0,
    refused: 0,
  }))

function toRouteFigures(
  route: string,
  slices: { answered: Durations; errors: number; refused: number }[],
  seconds: number,
): z.infer<typeof RouteFigures> {
  const answered = Durations.sum(slices.map(({ answered }) => answered))
  const refused = slices.reduce((sum, { refused }) => sum + refused, 0)
  const count = answered.count + refused
  return {
    route,
    count,
    perSecond: round(count / seconds),
    ...(answered.count > 0 && {
      p50: round(answered.percentile(0.5)),
      p99: round(answered.percentile(0.99)),
    }),
    errors: slices.reduce((sum, { errors }) => sum + errors, 0),
    refused,
  }
}

const toStatementFigures = (text: string, times: Durations) => ({
  text,
  count: times.count,
  totalMs: round(times.totalMs),
  p50: round(times.percentile(0.5)),
  p99: round(times.percentile(0.99)),
  max: round(times.maxMs),
})

export function requestRoutes(requests: LiveRequests, processId: string) {
  const router = createRouter()
  router.openapi({
    method: 'get',
    path: '/requests',
    operationId: 'readOpsRequests',
    access: 'operate',
    summary: 'Read the latest requests, and the times of routes and SQL statements',
    description: 'Successful reads with `X-Background: 1` count, but are not among the latest.',
    responses: { 200: json(Batch, 'At most 200 requests') },
    handler: (c) =>
      c.json({ process: processId, ...requests.read() }, 200, { 'Cache-Control': 'no-store' }),
  })
  return router
}
