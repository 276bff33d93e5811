import { z } from '@hono/zod-openapi'
import type { Log } from '../log.ts'
import { event } from '../realtime/event.ts'
import type { Realtime } from '../realtime/realtime.ts'
import { every, OPS, round } from './live-samples.ts'

const PUBLISH_EVERY_MS = 250
/** Per batch, which then has some 10 KiB. */
const MAX_SPANS = 50
/** More are reduced before the next batch is due. */
const MAX_COLLECTED = 500

const Span = z.object({
  task: z.string(),
  thread: z.string(),
  startedAt: z.number().describe('Milliseconds since the epoch, with fractions'),
  endedAt: z.number(),
  queuedMs: z.number().describe('Wait for the thread; the longest of several'),
  runMs: z.number().describe('Time on the thread; of several in sum, without pauses between them'),
  outcome: z.enum(['succeeded', 'failed', 'cancelled', 'deadline_exceeded', 'crashed']),
  requestId: z.string().optional().describe('Absent if several requests share the span'),
  count: z.int().describe('Number of tasks'),
})

/** A task on its thread, or several short ones of a kind in a row. */
export type TaskSpan = z.infer<typeof Span>

type EndedTask = Omit<TaskSpan, 'count'>

const Batch = z.object({
  spans: z
    .array(Span)
    .describe(
      'at most 50, with `task`, `thread`, times, `outcome` and the `count` of tasks in a row',
    ),
  leftOut: z.int().describe('further tasks, for which there was no room'),
})

export type SpanBatch = z.infer<typeof Batch>

export const opsSpans = event('ops.spans', {
  topic: OPS,
  when: 'Up to four times a second, when tasks have ended.',
  payload: Batch,
})

/** Publishes ended tasks to subscribers. To bound a batch, short neighbours become one span. */
export class LiveSpans {
  /** While false, an ended task costs only this check. */
  isSubscribed = false
  #spans: TaskSpan[] = []
  #leftOut = 0

  /** Publishes four times a second. */
  start(realtime: Pick<Realtime, 'hasSubscribers' | 'emitLatest'>, log: Pick<Log, 'warn'>) {
    const publish = () => {
      this.isSubscribed = realtime.hasSubscribers(OPS)
      const batch = this.take()
      if (batch) realtime.emitLatest(OPS, opsSpans, batch)
    }
    return every(PUBLISH_EVERY_MS, publish, (error) =>
      log.warn({ err: error }, 'A batch of spans for the live page failed'),
    )
  }

  observe(ended: EndedTask): void {
    if (!this.isSubscribed) return
    if (this.#spans.length >= MAX_COLLECTED) this.#reduce()
    this.#spans.push(toSpan(ended))
  }

  /** The tasks that ended since the last call. */
  take(): SpanBatch | undefined {
    if (this.#spans.length === 0) return undefined
    this.#reduce()
    const batch = { spans: this.#spans, leftOut: this.#leftOut }
    this.#spans = []
    this.#leftOut = 0
    return batch
  }

  /** Merges ever longer neighbours until they fit into a batch; otherwise keeps the longest. */
  #reduce() {
    for (let maxMs = 1; this.#spans.length > MAX_SPANS && maxMs <= 1_024; maxMs *= 2)
      this.#spans = merge(this.#spans, maxMs)
    const byLength = this.#spans.toSorted((one, other) => other.runMs - one.runMs)
    const others = new Set(byLength.slice(MAX_SPANS))
    this.#spans = this.#spans.filter((span) => !others.has(span))
    for (const { count } of others) this.#leftOut += count
  }
}

/** Merges neighbours of a kind on one thread that together last at most `maxMs`. */
function merge(spans: TaskSpan[], maxMs: number): TaskSpan[] {
  const lastByThread = new Map<string, TaskSpan>()
  return spans.filter((span) => {
    const last = lastByThread.get(span.thread)
    const isAlike = last?.task === span.task && last.outcome === span.outcome
    const fits = isAlike && span.endedAt - last.startedAt <= maxMs
    if (fits) extend(last, span)
    else lastByThread.set(span.thread, span)
    return !fits
  })
}

function extend(span: TaskSpan, next: TaskSpan) {
  span.endedAt = next.endedAt
  span.queuedMs = Math.max(span.queuedMs, next.queuedMs)
  span.runMs = round(span.runMs + next.runMs)
  span.count += next.count
  if (span.requestId !== next.requestId) span.requestId = undefined
}

/** Rounds to microseconds, which are half as long to send. */
const toSpan = ({ task, thread, outcome, requestId, ...times }: EndedTask): TaskSpan => ({
  task,
  thread,
  startedAt: round(times.startedAt),
  endedAt: round(times.endedAt),
  queuedMs: round(Math.max(0, times.queuedMs)),
  runMs: round(times.runMs),
  outcome,
  requestId,
  count: 1,
})
