import { performance } from 'node:perf_hooks'
import { z } from '@hono/zod-openapi'
import type { WorkerState } from '@offloop/workpool/pool'
import { createRouter, json } from '../http/router.ts'
import type { Log } from '../log.ts'
import { event } from '../realtime/event.ts'
import type { Realtime } from '../realtime/realtime.ts'
import { every, OPS, ProcessId, round } from './live-samples.ts'
import { Recent } from './recent.ts'

const PUBLISH_EVERY_MS = 250
/** Per batch: some 10 KiB. */
const MAX_SPANS = 50
const MAX_COLLECTED = 500
/** Shorter ones are merged at once. */
const SHORT_MS = 1
const MERGED_MS = 1_024

const KEPT_MS = 600_000
/** Some 400 KiB. */
const MAX_KEPT = 2_000
const THINNED_SHARE = 0.75
const THINNED_MS = 16_384

const Span = z
  .object({
    task: z.string(),
    thread: z.string().describe('Name of the worker thread or child process'),
    startedAt: z.number().describe('Milliseconds since the epoch, with fractions'),
    endedAt: z.number(),
    queuedMs: z.number().describe('Wait for the thread; the longest of several'),
    runMs: z.number().describe('Time on the thread; of several in sum, without pauses between'),
    outcome: z.enum(['succeeded', 'failed', 'cancelled', 'deadline_exceeded', 'crashed']),
    requestId: z.string().optional().describe('Absent if several requests share the span'),
    count: z.int().describe('Number of tasks'),
  })
  .openapi('TaskSpan')

/** Of a task, or several short ones of a kind in a row. */
export type TaskSpan = z.infer<typeof Span>

export type EndedTask = Omit<TaskSpan, 'count'> & { items: number }

const Running = z
  .object({
    ...Span.pick({ task: true, thread: true, startedAt: true, requestId: true, count: true }).shape,
    progress: z.number().optional().describe('From 0 to 1, if the task reports it'),
  })
  .openapi('RunningTask')

export type RunningTask = z.infer<typeof Running>

const Batch = z.object({
  number: z.int().describe('one more than that of the batch before'),
  spans: z
    .array(Span)
    .describe(
      'at most 50, with `task`, `thread`, times, `outcome` and the `count` of tasks in a row',
    ),
  leftOut: z.int().describe('further tasks, for which there was no room'),
  running: z.array(Running).describe('what runs now'),
})

export type SpanBatch = z.infer<typeof Batch>

const Past = z.object({
  startedAt: z.int().describe('When the process started; earlier tasks are unknown'),
  number: z.int().describe('Of the last batch that is included'),
  spans: z.array(Span).describe('In the order in which they ended'),
  leftOut: z.int(),
  running: z.array(Running),
})

export type PastSpans = z.infer<typeof Past>

export const opsSpans = event('ops.spans', {
  topic: OPS,
  when:
    'Up to four times a second from each process, when tasks have begun, ended or progressed. ' +
    'Those of the last ten minutes of one are at `GET /v1/ops/spans`.',
  payload: z.object({ process: ProcessId, ...Batch.shape }),
})

interface Parts {
  processId: string
  compute: { workerStates(): WorkerState[] }
  realtime: Pick<Realtime, 'hasSubscribers' | 'emit'>
  log: Pick<Log, 'warn'>
}

/** Keeps the tasks of the last ten minutes, and publishes new ones. */
export class LiveSpans {
  #ended: TaskSpan[] = []
  readonly #lastByThread = new Map<string, TaskSpan>()
  #leftOut = 0
  /** There is no room for shorter ones either. */
  #leftOutMs = Number.NEGATIVE_INFINITY
  #running: RunningTask[] = []
  #number = 0
  #kept: TaskSpan[] = []
  readonly #leftOutOfKept = new Recent(KEPT_MS / 10, 10, () => ({ tasks: 0 }))

  start({ processId, compute, realtime, log }: Parts): () => void {
    const publish = () => {
      const batch = this.take(compute.workerStates())
      // No `emitLatest`: the next batch does not supersede it.
      if (batch && realtime.hasSubscribers(OPS))
        realtime.emit(OPS, opsSpans, { process: processId, ...batch })
    }
    return every(PUBLISH_EVERY_MS, publish, (error) =>
      log.warn({ err: error }, 'A batch of spans for the live page failed'),
    )
  }

  observe(ended: EndedTask): void {
    const last = this.#ended.length < MAX_SPANS ? undefined : this.#lastByThread.get(ended.thread)
    if (last && mayMerge(last, ended, SHORT_MS)) extend(last, ended, ended.items)
    else if (ended.runMs <= this.#leftOutMs) this.#leftOut += ended.items
    else this.#add(toSpan(ended))
  }

  take(workers: WorkerState[], now = Date.now()): SpanBatch | undefined {
    const running = workers.flatMap(toRunning)
    if (this.#ended.length === 0 && isSame(running, this.#running)) return undefined
    this.#reduce()
    const batch = {
      number: ++this.#number,
      spans: this.#ended,
      leftOut: this.#leftOut,
      running,
    }
    this.#keep(batch, now)
    this.#ended = []
    this.#leftOut = 0
    this.#leftOutMs = Number.NEGATIVE_INFINITY
    this.#running = running
    return batch
  }

  past(now = Date.now()): PastSpans {
    return {
      startedAt: Math.round(performance.timeOrigin),
      number: this.#number,
      spans: this.#kept.filter(({ endedAt }) => endedAt > now - KEPT_MS),
      leftOut: this.#leftOutOfKept.read(now).reduce((sum, { tasks }) => sum + tasks, 0),
      running: this.#running,
    }
  }

  #add(span: TaskSpan) {
    if (this.#ended.length >= MAX_COLLECTED) this.#reduce()
    this.#ended.push(span)
    this.#lastByThread.set(span.thread, span)
  }

  #reduce() {
    const { spans, leftOut, leftOutMs } = reduce(this.#ended, MAX_SPANS, MERGED_MS)
    this.#ended = spans
    this.#leftOut += leftOut
    this.#leftOutMs = Math.max(this.#leftOutMs, leftOutMs)
    this.#lastByThread.clear()
  }

  #keep({ spans, leftOut }: SpanBatch, now: number) {
    // Merging must not change what was published.
    for (const span of spans) this.#kept.push({ ...span })
    this.#leftOutOfKept.current(now).tasks += leftOut
    if (this.#kept.length <= MAX_KEPT) return
    const kept = this.#kept.filter(({ endedAt }) => endedAt > now - KEPT_MS)
    const older = Math.floor(kept.length * THINNED_SHARE)
    const thinned = reduce(kept.slice(0, older), older >> 1, THINNED_MS)
    this.#kept = [...thinned.spans, ...kept.slice(older)]
    this.#leftOutOfKept.current(now).tasks += thinned.leftOut
  }
}

const toRunning = ({ name, running }: WorkerState): RunningTask[] => {
  if (!running) return []
  const { task, startedAt, items, progress, requestId } = running
  return [{ task, thread: name, startedAt: round(startedAt), requestId, count: items, progress }]
}

const isSame = (one: RunningTask[], other: RunningTask[]) =>
  one.length === other.length &&
  one.every(
    ({ thread, startedAt, progress }, index) =>
      thread === other[index]?.thread &&
      startedAt === other[index].startedAt &&
      progress === other[index].progress,
  )

/** Merges ever longer neighbours until they fit; otherwise keeps the longest. */
function reduce(spans: TaskSpan[], most: number, mergedMs: number) {
  for (let maxMs = SHORT_MS; spans.length > most && maxMs <= mergedMs; maxMs *= 4)
    spans = merge(spans, maxMs)
  const byLength = spans.toSorted((one, other) => other.runMs - one.runMs)
  const others = new Set(byLength.slice(most))
  let leftOut = 0
  for (const { count } of others) leftOut += count
  return {
    spans: spans.filter((span) => !others.has(span)),
    leftOut,
    leftOutMs: byLength[most]?.runMs ?? Number.NEGATIVE_INFINITY,
  }
}

/** Merges neighbours on one thread that together last at most `maxMs`. */
function merge(spans: TaskSpan[], maxMs: number): TaskSpan[] {
  const lastByThread = new Map<string, TaskSpan>()
  return spans.filter((span) => {
    const last = lastByThread.get(span.thread)
    if (last && mayMerge(last, span, maxMs)) {
      extend(last, span, span.count)
      return false
    }
    lastByThread.set(span.thread, span)
    return true
  })
}

const mayMerge = (
  last: TaskSpan,
  { task, outcome, endedAt }: Omit<TaskSpan, 'count'>,
  maxMs: number,
) => last.task === task && last.outcome === outcome && endedAt - last.startedAt <= maxMs

function extend(span: TaskSpan, next: Omit<TaskSpan, 'count'>, count: number) {
  span.endedAt = round(next.endedAt)
  span.queuedMs = Math.max(span.queuedMs, round(next.queuedMs))
  span.runMs = round(span.runMs + next.runMs)
  span.count += count
  if (span.requestId !== next.requestId) span.requestId = undefined
}

/** Rounds to microseconds, which are half as long to send. */
const toSpan = ({ task, thread, outcome, requestId, items, ...times }: EndedTask): TaskSpan => ({
  task,
  thread,
  startedAt: round(times.startedAt),
  endedAt: round(times.endedAt),
  queuedMs: round(Math.max(0, times.queuedMs)),
  runMs: round(times.runMs),
  outcome,
  requestId,
  count: items,
})

export function spanRoutes(spans: LiveSpans, processId: string) {
  const router = createRouter()
  router.openapi({
    method: 'get',
    path: '/spans',
    operationId: 'readSpans',
    access: 'operate',
    summary: 'Read the tasks of the last ten minutes of the process that answers',
    description:
      'At most 2 000 spans: with more, short neighbours of a kind become one. Batches of ' +
      '`ops.spans` with a higher `number` come after them.',
    responses: {
      200: json(
        z.object({ process: ProcessId, ...Past.shape }).openapi('PastSpans'),
        'Tasks that ended, and what runs',
      ),
    },
    handler: (c) =>
      c.json({ process: processId, ...spans.past() }, 200, { 'Cache-Control': 'no-store' }),
  })
  return router
}
