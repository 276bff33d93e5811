import { MAX_MAPPING_CALLERS } from './admission.ts'
import type { Call } from './call.ts'
import { Caller, Turns } from './caller.ts'
import { type Entry, MapEntry, type Priority } from './entry.ts'

/**
 * How the threads' time is divided while calls of both priorities wait: four fifths to requests,
 * the rest to jobs.
 */
const SHARES: Record<Priority, number> = { interactive: 0.8, batch: 0.2 }

/**
 * A job that took long is made up for, but no longer than that: jobs would else wait for hours
 * after it.
 */
const MAX_DEBT_MS = 10_000
/** The same for a caller. */
const MAX_CALLER_DEBT_MS = 1_000

/**
 * What waits, in the order in which it is served: each priority gets its share of the threads' time
 * (stride scheduling: the one that has used less of it, for its share, is next), and so does, in
 * equal shares, each caller of a priority.
 */
export class Queue {
  readonly #queues: Record<Priority, PriorityQueue> = {
    interactive: new PriorityQueue(SHARES.interactive),
    batch: new PriorityQueue(SHARES.batch),
  }

  get size() {
    return this.#queues.interactive.size + this.#queues.batch.size
  }

  sizeOf(priority: Priority) {
    return this.#queues[priority].size
  }

  /** How much work there is before a newcomer of this priority, in milliseconds of one thread. */
  waitMs(priority: Priority): number {
    const queue = this.#queues[priority]
    return this.#queues[other(priority)].size > 0 ? queue.waitMs / queue.share : queue.waitMs
  }

  push(entry: Entry): void {
    const queue = this.#queues[entry.priority]
    // Time that it did not want while it was empty is no credit.
    if (queue.size === 0)
      queue.usedMs = Math.max(queue.usedMs, this.#queues[other(entry.priority)].usedMs)
    queue.push(entry)
  }

  /** Puts calls back that were taken out, before the others of their callers. */
  unshift(calls: readonly Call[]): void {
    for (const call of calls.toReversed()) this.#queues[call.priority].unshift(call)
  }

  /**
   * The next to be served, which stays in the queue: a map only while the maps of few other callers
   * have begun.
   */
  next(mayServeBatch: boolean): Entry | undefined {
    const { interactive, batch } = this.#queues
    const request = interactive.next()
    const job = mayServeBatch ? batch.next() : undefined
    return job && (!request || batch.usedMs < interactive.usedMs) ? job : request
  }

  /**
   * The next map that waits for others of its caller, or of other callers, while there is nothing
   * else to serve.
   */
  extraMap(mayServeBatch: boolean): MapEntry | undefined {
    if (this.next(mayServeBatch)) return undefined
    const { interactive, batch } = this.#queues
    return interactive.firstMap ?? (mayServeBatch ? batch.firstMap : undefined)
  }

  /** Takes an entry out to be served, which is its caller's turn. */
  take(entry: Entry): void {
    this.#queues[entry.priority].take(entry)
  }

  /** Drops an entry; false when it is not in here. */
  delete(entry: Entry): boolean {
    return this.#queues[entry.priority].delete(entry)
  }

  /** Says what a served call took of the threads' time. */
  charge(call: Call, ms: number): void {
    const queue = this.#queues[call.priority]
    const most = this.#queues[other(call.priority)].usedMs + MAX_DEBT_MS
    queue.usedMs = Math.max(queue.usedMs, Math.min(queue.usedMs + ms / queue.share, most))
    queue.charge(call, ms)
  }

  /** A map that has begun counts as such while it has chunks for the threads. */
  hold(map: MapEntry): void {
    this.#queues[map.priority].hold(map)
  }

  /** The counterpart of `hold`: false when it did not count. */
  release(map: MapEntry): boolean {
    return this.#queues[map.priority].release(map)
  }

  /** Whatever waits. What has been read may be taken out meanwhile. */
  *[Symbol.iterator]() {
    yield* this.#queues.interactive
    yield* this.#queues.batch
  }
}

const other = (priority: Priority): Priority => (priority === 'batch' ? 'interactive' : 'batch')

/** What waits of one priority. */
class PriorityQueue {
  readonly share: number
  usedMs = 0
  size = 0
  waitMs = 0
  /** Maps that have begun and have chunks for the threads, by their callers. */
  readonly #begun = new Map<string | undefined, Set<MapEntry>>()
  /**
   * Those that wait, and those that have used more than their share. Callers without a key count as
   * one.
   */
  readonly #callers = new Map<string | undefined, Caller>()
  readonly #ready = new Turns()
  /** Callers that have nothing but maps that have not begun. */
  readonly #mapping = new Turns()
  /**
   * What the caller had used that was served last: a newcomer begins with it, without credit and
   * without debt.
   */
  #clockMs = 0

  constructor(share: number) {
    this.share = share
  }

  next(): Entry | undefined {
    const ready = this.#ready.first
    const mayBegin = this.#begun.size < MAX_MAPPING_CALLERS
    const mapping = mayBegin ? this.#mapping.find(({ key }) => !this.#begun.has(key)) : undefined
    if (mapping && (!ready || mapping.usedMs < ready.usedMs)) return mapping.maps.first
    return ready?.next(mayBegin && !this.#begun.has(ready.key))
  }

  get firstMap(): MapEntry | undefined {
    return this.#mapping.first?.maps.first
  }

  push(entry: Entry) {
    const caller = this.#callerOf(entry)
    caller.listOf(entry).append(entry)
    this.#added(entry, caller)
  }

  unshift(call: Call) {
    const caller = this.#callerOf(call)
    caller.listOf(call).prepend(call)
    this.#added(call, caller)
  }

  take(entry: Entry) {
    const caller = this.#callerOf(entry)
    this.#clockMs = Math.max(this.#clockMs, caller.usedMs)
    caller.turns?.remove(caller)
    if (entry instanceof MapEntry) this.hold(entry)
    this.delete(entry)
  }

  delete(entry: Entry): boolean {
    const caller = this.#callers.get(entry.options.key)
    if (!caller?.listOf(entry).delete(entry)) return false
    this.#count(entry, -1)
    this.#place(caller)
    if (this.size === 0) this.#callers.clear()
    else if (caller.isEmpty && caller.usedMs <= this.#clockMs) this.#callers.delete(caller.key)
    return true
  }

  hold(map: MapEntry) {
    const { key } = map.options
    const maps = this.#begun.get(key)
    if (maps) maps.add(map)
    else this.#begun.set(key, new Set([map]))
  }

  release(map: MapEntry): boolean {
    const { key } = map.options
    const maps = this.#begun.get(key)
    if (!maps?.delete(map)) return false
    if (maps.size === 0) this.#begun.delete(key)
    return true
  }

  charge(call: Call, ms: number) {
    // Where nobody waits, nobody has had less.
    if (this.size === 0) return
    const caller = this.#callerOf(call)
    caller.turns?.remove(caller)
    caller.charge(call, ms, this.#clockMs + MAX_CALLER_DEBT_MS)
    this.#place(caller)
  }

  *[Symbol.iterator]() {
    for (const caller of this.#callers.values()) {
      yield* caller
      // Its time has come round: nothing is left to remember.
      if (caller.isEmpty && caller.usedMs <= this.#clockMs) this.#callers.delete(caller.key)
    }
  }

  #callerOf({ options: { key } }: Entry): Caller {
    let caller = this.#callers.get(key)
    if (!caller) {
      caller = new Caller(key, this.#clockMs)
      this.#callers.set(key, caller)
    } else if (caller.isEmpty) caller.usedMs = Math.max(caller.usedMs, this.#clockMs)
    return caller
  }

  #added(entry: Entry, caller: Caller) {
    this.#count(entry, 1)
    this.#place(caller)
  }

  /**
   * Puts the caller where it belongs by what it has, at the end of those that have used as much,
   * unless it is there.
   */
  #place(caller: Caller) {
    const turns = caller.isReady ? this.#ready : caller.maps.first ? this.#mapping : undefined
    if (caller.turns === turns) return
    caller.turns?.remove(caller)
    turns?.add(caller)
  }

  #count({ estimateMs = 0 }: Entry, sign: 1 | -1) {
    this.size += sign
    this.waitMs += sign * estimateMs
  }
}
