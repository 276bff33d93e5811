import type { Call, Priority } from './call.ts'

/** How the threads' time is divided while calls of both priorities wait: four fifths to requests, the rest to jobs. */
const SHARES: Record<Priority, number> = { interactive: 0.8, batch: 0.2 }

/** A job that took long is made up for, but no longer than that: jobs would else wait for hours after it. */
const MAX_DEBT_MS = 10_000

/**
 * The calls that wait, in the order in which they are served: each priority gets its share of the threads' time (stride
 * scheduling: whoever has used less of it, for its share, is next), and within a priority the callers take turns.
 */
export class Queue {
  readonly #lanes: Record<Priority, Lane> = { interactive: new Lane(SHARES.interactive), batch: new Lane(SHARES.batch) }

  get size() {
    return this.#lanes.interactive.size + this.#lanes.batch.size
  }

  sizeOf(priority: Priority) {
    return this.#lanes[priority].size
  }

  /** How much work there is before a newcomer of this priority, in milliseconds of one thread. */
  waitMs(priority: Priority): number {
    const lane = this.#lanes[priority]
    return this.#lanes[other(priority)].size > 0 ? lane.waitMs / lane.share : lane.waitMs
  }

  push(call: Call): void {
    const lane = this.#lanes[call.priority]
    // Time that it did not want while it was empty is no credit.
    if (lane.size === 0) lane.usedMs = Math.max(lane.usedMs, this.#lanes[other(call.priority)].usedMs)
    lane.push(call)
  }

  /** Puts calls back that were taken out, before the others of their callers. */
  unshift(calls: readonly Call[]): void {
    for (const call of calls.toReversed()) this.#lanes[call.priority].unshift(call)
  }

  /** The next to be served, which stays in the queue. */
  peek(allowBatch: boolean): Call | undefined {
    const { interactive, batch } = this.#lanes
    if (!allowBatch || batch.size === 0) return interactive.first
    if (interactive.size === 0 || batch.usedMs < interactive.usedMs) return batch.first
    return interactive.first
  }

  /** Takes a call out, to be served or dropped; false when it is not in here. */
  delete(call: Call): boolean {
    return this.#lanes[call.priority].delete(call)
  }

  /** Says what a served call took of the threads' time. */
  charge({ priority }: Call, ms: number): void {
    const lane = this.#lanes[priority]
    const most = this.#lanes[other(priority)].usedMs + MAX_DEBT_MS
    lane.usedMs = Math.max(lane.usedMs, Math.min(lane.usedMs + ms / lane.share, most))
  }

  *[Symbol.iterator]() {
    yield* this.#lanes.interactive
    yield* this.#lanes.batch
  }
}

const other = (priority: Priority): Priority => (priority === 'batch' ? 'interactive' : 'batch')

/** The calls of one priority: a line for each caller, the callers in turns. */
class Lane {
  readonly share: number
  usedMs = 0
  size = 0
  waitMs = 0
  /** In the order of their turns: a Map keeps the order of insertion. Callers without a key share a line. */
  readonly #lines = new Map<string | undefined, Line>()

  constructor(share: number) {
    this.share = share
  }

  get first(): Call | undefined {
    for (const line of this.#lines.values()) return line.first
    return undefined
  }

  push(call: Call) {
    this.#lineOf(call).append(call)
    this.#count(call, 1)
  }

  unshift(call: Call) {
    this.#lineOf(call).prepend(call)
    this.#count(call, 1)
  }

  delete(call: Call): boolean {
    const { key } = call.options
    const line = this.#lines.get(key)
    const isNext = line?.first === call && this.first === call
    if (!line?.delete(call)) return false
    if (!line.first) this.#lines.delete(key)
    else if (isNext && this.#lines.size > 1) {
      // It has had its turn: the next one comes when all others had theirs.
      this.#lines.delete(key)
      this.#lines.set(key, line)
    }
    this.#count(call, -1)
    return true
  }

  #lineOf({ options: { key } }: Call): Line {
    const line = this.#lines.get(key) ?? new Line()
    if (!line.first) this.#lines.set(key, line)
    return line
  }

  #count({ estimateMs = 0 }: Call, sign: 1 | -1) {
    this.size += sign
    this.waitMs += sign * estimateMs
  }

  *[Symbol.iterator]() {
    for (const line of this.#lines.values()) yield* line
  }
}

/** A doubly linked list through the calls themselves: a Set slows down when thousands leave it at its front. */
class Line {
  first: Call | undefined
  #last: Call | undefined

  append(call: Call) {
    call.line = this
    call.previous = this.#last
    if (this.#last) this.#last.next = call
    else this.first = call
    this.#last = call
  }

  prepend(call: Call) {
    call.line = this
    call.next = this.first
    if (this.first) this.first.previous = call
    else this.#last = call
    this.first = call
  }

  delete(call: Call): boolean {
    if (call.line !== this) return false
    const { previous, next } = call
    if (previous) previous.next = next
    else this.first = next
    if (next) next.previous = previous
    else this.#last = previous
    call.line = call.previous = call.next = undefined
    return true
  }

  *[Symbol.iterator]() {
    for (let call = this.first; call; call = call.next) yield call
  }
}
