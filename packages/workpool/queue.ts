import { type Call, type Entry, type Link, MapEntry, type Priority } from './call.ts'
import {
  INTERACTIVE_SHARE,
  MAX_CALLER_CREDIT_MS,
  MAX_CALLER_DEBT_MS,
  MAX_CALLERS_WITH_MAPS,
  MAX_PRIORITY_DEBT_MS,
  MAX_RUN_MAP_IMBALANCE_MS,
} from './policy.ts'

/**
 * Each priority gets its share of the workers' time (stride scheduling), each caller an equal share
 * of that (start-time fair queueing).
 */
export class Queue {
  readonly #interactive = new PriorityQueue(INTERACTIVE_SHARE)
  readonly #batch = new PriorityQueue(1 - INTERACTIVE_SHARE)

  get size() {
    return this.#interactive.size + this.#batch.size
  }

  of(priority: Priority): PriorityQueue {
    return priority === 'batch' ? this.#batch : this.#interactive
  }

  /** Expected work ahead of a new entry, in milliseconds of one worker. */
  waitMs(priority: Priority): number {
    const { waitMs, share } = this.of(priority)
    return this.#otherThan(priority).size > 0 ? waitMs / share : waitMs
  }

  push(entry: Entry): void {
    const queue = this.of(entry.priority)
    // A priority earns no credit while it is empty.
    if (queue.size === 0)
      queue.usedMs = Math.max(queue.usedMs, this.#otherThan(entry.priority).usedMs)
    queue.add(entry)
  }

  /** Puts revoked calls back in front. */
  unshift(calls: readonly Call[]): void {
    for (const call of calls.toReversed()) this.of(call.priority).add(call, true)
  }

  peek(mayServeBatch: boolean, isExtra = false): Entry | undefined {
    const request = this.#interactive.peek(isExtra)
    const job = mayServeBatch ? this.#batch.peek(isExtra) : undefined
    return job && (!request || this.#batch.usedMs < this.#interactive.usedMs) ? job : request
  }

  /** A map that waits only for other maps, and may begin out of turn. */
  peekExtraMap(mayServeBatch: boolean): MapEntry | undefined {
    if (this.peek(mayServeBatch)) return undefined
    return this.peek(mayServeBatch, true) as MapEntry | undefined
  }

  charge(call: Call, ms: number): void {
    const queue = this.of(call.priority)
    const most = this.#otherThan(call.priority).usedMs + MAX_PRIORITY_DEBT_MS
    queue.usedMs = Math.max(queue.usedMs, Math.min(queue.usedMs + ms / queue.share, most))
    queue.charge(call, ms)
  }

  *[Symbol.iterator]() {
    yield* this.#interactive
    yield* this.#batch
  }

  #otherThan(priority: Priority) {
    return priority === 'batch' ? this.#interactive : this.#batch
  }
}

const toKeys = (maps: ReadonlySet<MapEntry>) =>
  new Set(Array.from(maps, ({ options }) => options.key))
const NO_KEYS: ReadonlySet<string | undefined> = new Set()

class PriorityQueue {
  readonly share: number
  usedMs = 0
  size = 0
  waitMs = 0
  /** Maps that have begun and have chunks to add. */
  readonly activeMaps = new Set<MapEntry>()
  /** Callers that wait or used more than their share; one for all without a key. */
  readonly #callers = new Map<string | undefined, Caller>()
  readonly #waiting = new CallerOrder()
  /** Used time of the caller served last; new callers begin with it. */
  #clockMs = 0

  constructor(share: number) {
    this.share = share
  }

  /** @param isExtra whether a map may begin beside any others. */
  peek(isExtra: boolean): Entry | undefined {
    const active = this.activeMaps.size > 0 && !isExtra ? toKeys(this.activeMaps) : NO_KEYS
    const mayBegin = active.size < MAX_CALLERS_WITH_MAPS
    const { first } = this.#waiting
    const caller = first?.isReady
      ? first
      : this.#waiting.find(({ isReady, key }) => isReady || (mayBegin && !active.has(key)))
    return caller?.peek(mayBegin && !active.has(caller.key))
  }

  add(entry: Entry, inFront = false): void {
    const caller = this.#findCaller(entry)
    caller[entry.kind].add(entry, inFront)
    this.size++
    this.waitMs += entry.estimateMs ?? 0
    this.#place(caller)
  }

  take(entry: Entry): void {
    const caller = this.#findCaller(entry)
    this.#clockMs = Math.max(this.#clockMs, caller.usedMs)
    this.#waiting.remove(caller)
    if (entry instanceof MapEntry) this.activeMaps.add(entry)
    this.delete(entry)
  }

  delete(entry: Entry): boolean {
    const caller = this.#callers.get(entry.options.key)
    if (!caller?.[entry.kind].delete(entry)) return false
    this.size--
    this.waitMs -= entry.estimateMs ?? 0
    this.#place(caller)
    if (this.size === 0) this.#callers.clear()
    else this.#forgetIfSettled(caller)
    return true
  }

  charge(call: Call, ms: number): void {
    // While nothing waits, no caller is at a disadvantage.
    if (this.size === 0) return
    const caller = this.#findCaller(call)
    this.#waiting.remove(caller)
    caller.charge(call, ms, this.#clockMs + MAX_CALLER_DEBT_MS)
    this.#place(caller)
  }

  *[Symbol.iterator]() {
    for (const caller of this.#callers.values()) {
      for (const list of [caller.chunk, caller.run, caller.map]) yield* list
      this.#forgetIfSettled(caller)
    }
  }

  /** A caller that asks one thing after the other loses no share between two of them. */
  get #settledMs() {
    return this.#clockMs - MAX_CALLER_CREDIT_MS
  }

  #findCaller({ options: { key } }: Entry): Caller {
    let caller = this.#callers.get(key)
    if (!caller) {
      caller = new Caller(key, this.#clockMs)
      this.#callers.set(key, caller)
    } else if (caller.isEmpty) caller.usedMs = Math.max(caller.usedMs, this.#settledMs)
    return caller
  }

  #place(caller: Caller) {
    if (caller.isEmpty) this.#waiting.remove(caller)
    else this.#waiting.add(caller)
  }

  #forgetIfSettled(caller: Caller) {
    if (caller.isEmpty && caller.usedMs <= this.#settledMs) this.#callers.delete(caller.key)
  }
}

/** A caller, whose runs and maps get equal time. */
export class Caller {
  readonly key: string | undefined
  readonly run = new EntryList()
  readonly chunk = new EntryList()
  readonly map = new EntryList()
  usedMs: number
  isOrdered = false
  /** Time of the runs, minus that of the maps. */
  #imbalanceMs = 0

  constructor(key: string | undefined, usedMs: number) {
    this.key = key
    this.usedMs = usedMs
  }

  get isReady() {
    return !this.run.isEmpty || !this.chunk.isEmpty
  }

  get isEmpty() {
    return !this.isReady && this.map.isEmpty
  }

  peek(mayBeginMap: boolean): Entry | undefined {
    const run = this.run.first
    const map = this.chunk.first ?? (mayBeginMap ? this.map.first : undefined)
    return !run || (map && this.#imbalanceMs > 0) ? map : run
  }

  /** Used time beyond `mostMs` is forgiven. */
  charge({ map }: Call, ms: number, mostMs: number): void {
    this.usedMs = Math.max(this.usedMs, Math.min(this.usedMs + ms, mostMs))
    const imbalanceMs = this.#imbalanceMs + (map ? -ms : ms)
    const most = MAX_RUN_MAP_IMBALANCE_MS
    this.#imbalanceMs = Math.max(-most, Math.min(imbalanceMs, most))
  }
}

/** Callers by used time, least first. */
export class CallerOrder {
  readonly #callers: Caller[] = []

  get first(): Caller | undefined {
    return this.#callers[0]
  }

  find(matches: (caller: Caller) => boolean): Caller | undefined {
    return this.#callers.find(matches)
  }

  add(caller: Caller): void {
    if (caller.isOrdered) return
    caller.isOrdered = true
    const index = this.#bisect((usedMs) => usedMs > caller.usedMs)
    if (index === this.#callers.length) this.#callers.push(caller)
    else this.#callers.splice(index, 0, caller)
  }

  remove(caller: Caller): void {
    if (!caller.isOrdered) return
    caller.isOrdered = false
    const from = this.#bisect((usedMs) => usedMs >= caller.usedMs)
    const index = this.#callers.indexOf(caller, from)
    if (index === 0) this.#callers.shift()
    else this.#callers.splice(index, 1)
  }

  #bisect(matches: (usedMs: number) => boolean): number {
    let low = 0
    let high = this.#callers.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (matches((this.#callers[middle] as Caller).usedMs)) high = middle
      else low = middle + 1
    }
    return low
  }
}

/** A linked list, with itself at both ends: a Set slows down when thousands leave at its front. */
class EntryList {
  previous: Link = this
  next: Link = this

  get isEmpty() {
    return this.next === this
  }

  get first(): Entry | undefined {
    return this.isEmpty ? undefined : (this.next as Entry)
  }

  add(entry: Entry, inFront: boolean): void {
    entry.list = this
    entry.previous = inFront ? this : this.previous
    entry.next = entry.previous.next
    entry.previous.next = entry
    entry.next.previous = entry
  }

  delete(entry: Entry): boolean {
    if (entry.list !== this) return false
    entry.previous.next = entry.next
    entry.next.previous = entry.previous
    entry.list = undefined
    // A finished entry must not keep its neighbours in memory.
    entry.previous = entry.next = entry
    return true
  }

  *[Symbol.iterator]() {
    for (let link = this.next; link !== this; ) {
      // The reader may delete the entry.
      const { next } = link
      yield link as Entry
      link = next
    }
  }
}
