import type { Timing } from '@offloop/workpool/timing'
import type { SpanBatch, TaskSpan } from './contract.ts'

/** In one batch: some 10 KiB. */
const MAX_SPANS = 50
/**
 * Kept between two batches; a task beyond that lengthens its thread's last span, if it is like it.
 */
const MAX_HELD = 500

/**
 * Collects the tasks that have ended until somebody takes them, a few times a second. However many
 * there are, what it keeps and what it gives is bounded: short ones become one span with their
 * neighbours.
 */
export class Spans {
  /** Whether anybody wants them: if not, a task costs one look at this. */
  listening = false
  #held: TaskSpan[] = []
  readonly #lastOf = new Map<string, TaskSpan>()
  #leftOut = 0

  observe = (timing: Timing): void => {
    if (!this.listening) return
    const last = this.#lastOf.get(timing.thread)
    if (this.#held.length < MAX_HELD) {
      const span = spanOf(timing)
      this.#held.push(span)
      this.#lastOf.set(timing.thread, span)
    } else if (last && isAlike(last, timing)) absorb(last, { ...timing, count: 1 })
    else this.#leftOut++
  }

  /** What has ended since the last time, if anything has. */
  take(): SpanBatch | undefined {
    if (this.#held.length === 0) return undefined
    const fitting = reduced(this.#held)
    const leftOut = this.#leftOut + countOf(fitting.slice(MAX_SPANS))
    this.#held = []
    this.#lastOf.clear()
    this.#leftOut = 0
    return { spans: fitting.slice(0, MAX_SPANS).map(rounded), leftOut }
  }
}

/**
 * As few as may be sent, by making one of ever longer neighbours; the longest first where that is
 * not enough.
 */
function reduced(spans: TaskSpan[]): TaskSpan[] {
  let fitting = spans
  for (let maxMs = 1; fitting.length > MAX_SPANS && maxMs <= 1_024; maxMs *= 2)
    fitting = merged(fitting, maxMs)
  if (fitting.length <= MAX_SPANS) return fitting
  return fitting.toSorted((one, other) => other.runMs - one.runMs)
}

/**
 * Spans that begin within `maxMs` of the beginning of one like them, on the same thread, become
 * part of it.
 */
function merged(spans: TaskSpan[], maxMs: number): TaskSpan[] {
  const lastOf = new Map<string, TaskSpan>()
  return spans.filter((span) => {
    const last = lastOf.get(span.thread)
    const fits = last && isAlike(last, span) && span.endedAt - last.startedAt <= maxMs
    if (fits) absorb(last, span)
    else lastOf.set(span.thread, span)
    return !fits
  })
}

const isAlike = (one: TaskSpan, other: Pick<TaskSpan, 'task' | 'outcome'>) =>
  one.task === other.task && one.outcome === other.outcome

function absorb(span: TaskSpan, next: Omit<TaskSpan, 'task' | 'thread' | 'outcome'>) {
  span.endedAt = next.endedAt
  span.queuedMs = Math.max(span.queuedMs, next.queuedMs)
  span.runMs += next.runMs
  span.count += next.count
  if (span.requestId !== next.requestId) span.requestId = undefined
}

const spanOf = ({
  task,
  thread,
  startedAt,
  endedAt,
  queuedMs,
  runMs,
  outcome,
  requestId,
}: Timing): TaskSpan => ({
  task,
  thread,
  startedAt,
  endedAt,
  queuedMs,
  runMs,
  outcome,
  requestId,
  count: 1,
})

/** Microseconds are enough, and half as long to send. */
const rounded = (span: TaskSpan): TaskSpan => ({
  ...span,
  startedAt: round(span.startedAt),
  endedAt: round(span.endedAt),
  queuedMs: round(Math.max(0, span.queuedMs)),
  runMs: round(span.runMs),
})

const round = (ms: number) => Math.round(ms * 1_000) / 1_000

const countOf = (spans: TaskSpan[]) => spans.reduce((total, { count }) => total + count, 0)
