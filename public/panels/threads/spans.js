/** @typedef {import('../../../src/ops/live-spans.ts').TaskSpan} Span */

export const KEPT_MS = 600_000
/** Beyond that, old spans are merged with their neighbours. */
const MAX_SPANS = 30_000
const MERGED_MS = 500

/** The tasks of the last ten minutes, by thread. */
export class SpanStore {
  /** The spans of each thread, by start time. @type {Map<string, Span[]>} */
  lanes = new Map()
  #count = 0

  /** @param {Span[]} spans */
  add(spans) {
    for (const span of spans) this.#findLane(span.thread).push(span)
    this.#count += spans.length
    if (this.#count > MAX_SPANS) this.#shrink()
  }

  /** Shows a thread even if it has run nothing. @param {string} thread */
  addThread(thread) {
    this.#findLane(thread)
  }

  /** @param {number} time in milliseconds since the epoch */
  forgetBefore(time) {
    for (const [thread, spans] of this.lanes) {
      const first = firstEndingAfter(spans, time)
      if (first > 0) this.lanes.set(thread, spans.slice(first))
      this.#count -= first
    }
  }

  /** Forgets ended threads without spans. @param {Set<string>} present */
  forgetThreads(present) {
    for (const [thread, spans] of this.lanes)
      if (spans.length === 0 && !present.has(thread)) this.lanes.delete(thread)
  }

  /** All of them, thread by thread. */
  get all() {
    return [...this.lanes.values()].flat()
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
    if (this.#count < MAX_SPANS * 0.9) return
    for (const [thread, spans] of this.lanes)
      this.lanes.set(thread, spans.slice(Math.ceil(spans.length / 10)))
    this.#count = this.all.length
  }
}

/** Index of the first span that ends at or after `time`. @param {Span[]} spans @param {number} time */
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
