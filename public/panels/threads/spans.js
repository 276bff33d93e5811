/** @typedef {import('../../../src/ops/live-spans.ts').TaskSpan} Span */
/** @typedef {import('../../../src/ops/live-spans.ts').RunningTask} RunningTask */
/** @typedef {import('../../../src/ops/live-spans.ts').SpanBatch} SpanBatch */
/** @typedef {import('../../../src/ops/live-spans.ts').PastSpans} PastSpans */

/** Beyond that, old spans are merged with their neighbours. */
export const MAX_SPANS = 30_000
const MERGED_MS = 500
const FORGOTTEN_PARTS = 16

/** The tasks of the last ten minutes, by worker, and what runs. */
export class SpanStore {
  max = MAX_SPANS
  /** The ended tasks of each worker, by time. @type {Map<string, Span[]>} */
  lanes = new Map()
  /** @type {RunningTask[]} */
  running = []
  /**
   * When nothing was received; until the past is read, all time before.
   *
   * @type {{ from: number, to: number }[]}
   */
  gaps = [{ from: 0, to: Number.POSITIVE_INFINITY }]
  /** Batches since the past was asked for. @type {SpanBatch[] | undefined} */
  #newer
  /** Tasks for which there was no room. @type {{ at: number, count: number }[]} */
  #leftOut = []
  #count = 0

  /** @param {SpanBatch} batch */
  add(batch) {
    this.#newer?.push(batch)
    this.running = batch.running
    this.#append(batch.spans)
    this.#leaveOut(batch.leftOut, batch.spans.at(-1)?.endedAt ?? 0)
  }

  /** To be called before the past is read, so that no batch is missed. */
  expectPast() {
    this.#newer = []
  }

  /**
   * Replaces what `past` includes, and closes the gaps for which it has the tasks.
   *
   * @param {PastSpans | undefined} past undefined if it could not be read
   * @param {number} now
   */
  load(past, now) {
    const newer = this.#newer ?? []
    this.#newer = undefined
    if (!past) return this.#reconnect(now)
    // Of the process before, only the page knows.
    const earlier = this.all.filter(({ endedAt }) => endedAt < past.startedAt)
    for (const thread of this.lanes.keys()) this.lanes.set(thread, [])
    this.#count = 0
    this.#leftOut = []
    this.running = past.running
    this.#append([...earlier, ...past.spans])
    this.#leaveOut(past.leftOut, past.spans.at(-1)?.endedAt ?? 0)
    this.#reconnect(past.startedAt)
    for (const batch of newer) if (batch.number > past.number) this.add(batch)
  }

  get isLost() {
    return this.gaps.at(-1)?.to === Number.POSITIVE_INFINITY
  }

  /** @param {number} time */
  disconnect(time) {
    if (this.isLost) return
    this.running = []
    this.gaps.push({ from: time, to: Number.POSITIVE_INFINITY })
  }

  /** Puts what the process before has run in front. @param {SpanStore} earlier */
  adopt(earlier) {
    const own = this.all
    const from = this.gaps.find(({ from }) => from === 0)?.to ?? 0
    this.lanes.clear()
    this.#count = 0
    this.#append([...earlier.all, ...own])
    const before = earlier.gaps.map(({ from: start, to }) => ({
      from: start,
      to: Math.min(to, from),
    }))
    this.gaps = [...before, ...this.gaps.filter(({ from: start }) => start > 0)]
  }

  /** @param {number} time from which on nothing is missing */
  #reconnect(time) {
    this.gaps = this.gaps
      .filter(({ from }) => from < time)
      .map(({ from, to }) => ({ from, to: Math.min(to, time) }))
  }

  /**
   * Forgets what ended before `time`, and ended workers of which nothing is left.
   *
   * @param {number} time in milliseconds since the epoch
   * @param {string[]} workers that there are, also those that have run nothing
   */
  keepSince(time, workers) {
    for (const [thread, spans] of this.lanes) {
      const first = firstEndingAfter(spans, time)
      const isEmpty = first === spans.length
      // A few old ones at a time would cost a copy of all others.
      if (isEmpty || first > spans.length / FORGOTTEN_PARTS) {
        this.lanes.set(thread, spans.slice(first))
        this.#count -= first
      }
      if (isEmpty && !workers.includes(thread)) this.lanes.delete(thread)
    }
    for (const worker of workers) this.#findLane(worker)
    this.gaps = this.gaps.filter(({ to }) => to > time)
    this.#leftOut = this.#leftOut.filter(({ at }) => at > time)
  }

  /** All ended tasks, worker by worker. */
  get all() {
    return [...this.lanes.values()].flat()
  }

  get leftOut() {
    return this.#leftOut.reduce((sum, { count }) => sum + count, 0)
  }

  /** @param {Span[]} spans */
  #append(spans) {
    for (const span of spans) this.#findLane(span.thread).push(span)
    this.#count += spans.length
    if (this.#count > this.max) this.#shrink()
  }

  /** @param {number} count @param {number} at */
  #leaveOut(count, at) {
    if (count > 0) this.#leftOut.push({ at, count })
  }

  /** @param {string} thread */
  #findLane(thread) {
    const lane = this.lanes.get(thread) ?? []
    if (lane.length === 0 && !this.lanes.has(thread)) {
      this.lanes.set(thread, lane)
      this.lanes = new Map(
        [...this.lanes].sort(([one], [other]) => one.localeCompare(other, 'en', { numeric: true })),
      )
    }
    return lane
  }

  /** Merges the older half; if that does not help, drops the oldest tenth. */
  #shrink() {
    for (const [thread, spans] of this.lanes) {
      const half = spans.length >> 1
      this.lanes.set(thread, [...merge(spans.slice(0, half)), ...spans.slice(half)])
    }
    this.#count = this.all.length
    if (this.#count < this.max * 0.9) return
    for (const [thread, spans] of this.lanes)
      this.lanes.set(thread, spans.slice(Math.ceil(spans.length / 10)))
    this.#count = this.all.length
  }
}

/**
 * Index of the first that ends at or after `time`.
 *
 * @param {{ endedAt: number }[]} spans
 * @param {number} time
 */
export function firstEndingAfter(spans, time) {
  let [low, high] = [0, spans.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if (spans[middle].endedAt < time) low = middle + 1
    else high = middle
  }
  return low
}

/** @param {Span[]} spans @returns {Span[]} */
function merge(spans) {
  /** @type {Span[]} */
  const kept = []
  for (const span of spans) {
    const last = kept.at(-1)
    if (
      !last ||
      last.task !== span.task ||
      last.outcome !== span.outcome ||
      span.endedAt - last.startedAt > MERGED_MS
    ) {
      kept.push({ ...span })
      continue
    }
    last.endedAt = span.endedAt
    last.queuedMs = Math.max(last.queuedMs, span.queuedMs)
    last.runMs += span.runMs
    last.count += span.count
    if (last.requestId !== span.requestId) last.requestId = undefined
  }
  return kept
}
