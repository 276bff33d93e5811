import { type Call, MapEntry, type Priority, type QueueEntry } from './call.ts'
import {
  INTERACTIVE_SHARE,
  MAX_CALLER_DEBT_MS,
  MAX_CALLERS_WITH_MAPS,
  MAX_PRIORITY_DEBT_MS,
  MAX_RUN_MAP_IMBALANCE_MS,
} from './policy.ts'

/**
 * What waits, in the order in which it is served. Each priority gets its share of the workers'
 * time (stride scheduling: the one that has used less of its share is next), and within a priority
 * each caller gets an equal share (start-time fair queueing).
 */
export class Queue {
  readonly #queues: Record<Priority, PriorityQueue> = {
    interactive: new PriorityQueue(INTERACTIVE_SHARE),
    batch: new PriorityQueue(1 - INTERACTIVE_SHARE),
  }

  get size() {
    return this.#queues.interactive.size + this.#queues.batch.size
  }

  count(priority: Priority) {
    return this.#queues[priority].size
  }

  /** The expected work before a new entry of this priority, in milliseconds of one worker. */
  waitMs(priority: Priority): number {
    const queue = this.#queues[priority]
    return this.#queues[other(priority)].size > 0 ? queue.waitMs / queue.share : queue.waitMs
  }

  push(entry: QueueEntry): void {
    const queue = this.#queues[entry.priority]
    // Time that a priority did not need while it was empty is no credit.
    if (queue.size === 0)
      queue.usedMs = Math.max(queue.usedMs, this.#queues[other(entry.priority)].usedMs)
    queue.push(entry)
  }

  /** Puts revoked calls back, before the other calls of their callers. */
  unshift(calls: readonly Call[]): void {
    for (const call of calls.toReversed()) this.#queues[call.priority].unshift(call)
  }

  /** The next entry to serve, which stays in the queue. */
  peek(mayServeBatch: boolean): QueueEntry | undefined {
    const { interactive, batch } = this.#queues
    const request = interactive.peek()
    const job = mayServeBatch ? batch.peek() : undefined
    return job && (!request || batch.usedMs < interactive.usedMs) ? job : request
  }

  /** A map that waits only for other maps, while nothing else can be served. */
  peekExtraMap(mayServeBatch: boolean): MapEntry | undefined {
    if (this.peek(mayServeBatch)) return undefined
    const { interactive, batch } = this.#queues
    return interactive.firstMap ?? (mayServeBatch ? batch.firstMap : undefined)
  }

  /** Removes an entry to serve it, which is its caller's turn. */
  take(entry: QueueEntry): void {
    this.#queues[entry.priority].take(entry)
  }

  /** Removes an entry that is not served. False when it does not wait here. */
  delete(entry: QueueEntry): boolean {
    return this.#queues[entry.priority].delete(entry)
  }

  /** Charges the run time of a call to its priority and its caller. */
  charge(call: Call, ms: number): void {
    const queue = this.#queues[call.priority]
    const most = this.#queues[other(call.priority)].usedMs + MAX_PRIORITY_DEBT_MS
    queue.usedMs = Math.max(queue.usedMs, Math.min(queue.usedMs + ms / queue.share, most))
    queue.charge(call, ms)
  }

  /** A map is active from its beginning for as long as it has chunks for the workers. */
  activate(map: MapEntry): void {
    this.#queues[map.priority].activate(map)
  }

  /** False when the map was not active. */
  deactivate(map: MapEntry): boolean {
    return this.#queues[map.priority].deactivate(map)
  }

  /** All entries; those that were visited may be removed meanwhile. */
  *[Symbol.iterator]() {
    yield* this.#queues.interactive
    yield* this.#queues.batch
  }
}

const other = (priority: Priority): Priority => (priority === 'batch' ? 'interactive' : 'batch')

class PriorityQueue {
  readonly share: number
  usedMs = 0
  size = 0
  waitMs = 0
  /** Those that wait, and those that have used more than their share; one for all without a key. */
  readonly #callers = new Map<string | undefined, Caller>()
  /** Callers with calls that a worker could begin now. */
  readonly #ready = new CallerOrder()
  /** Callers that have nothing but maps that have not begun. */
  readonly #mapping = new CallerOrder()
  /** The active maps of each caller. */
  readonly #active = new Map<string | undefined, Set<MapEntry>>()
  /** The used time of the caller served last, with which a new caller begins. */
  #clockMs = 0

  constructor(share: number) {
    this.share = share
  }

  peek(): QueueEntry | undefined {
    const ready = this.#ready.first
    const mayBegin = this.#active.size < MAX_CALLERS_WITH_MAPS
    const mapping = mayBegin ? this.#mapping.find(({ key }) => !this.#active.has(key)) : undefined
    if (mapping && (!ready || mapping.usedMs < ready.usedMs)) return mapping.maps.first
    return ready?.peek(mayBegin && !this.#active.has(ready.key))
  }

  get firstMap(): MapEntry | undefined {
    return this.#mapping.first?.maps.first
  }

  push(entry: QueueEntry) {
    const caller = this.#findCaller(entry)
    caller.findList(entry).append(entry)
    this.#added(entry, caller)
  }

  unshift(call: Call) {
    const caller = this.#findCaller(call)
    caller.findList(call).prepend(call)
    this.#added(call, caller)
  }

  take(entry: QueueEntry) {
    const caller = this.#findCaller(entry)
    this.#clockMs = Math.max(this.#clockMs, caller.usedMs)
    // It goes behind the callers that have used as much.
    caller.order?.remove(caller)
    if (entry instanceof MapEntry) this.activate(entry)
    this.delete(entry)
  }

  delete(entry: QueueEntry): boolean {
    const caller = this.#callers.get(entry.options.key)
    if (!caller?.findList(entry).delete(entry)) return false
    this.size--
    this.waitMs -= entry.estimateMs ?? 0
    this.#place(caller)
    if (this.size === 0) this.#callers.clear()
    else this.#forgetIfSettled(caller)
    return true
  }

  activate(map: MapEntry) {
    const { key } = map.options
    const maps = this.#active.get(key)
    if (maps) maps.add(map)
    else this.#active.set(key, new Set([map]))
  }

  deactivate(map: MapEntry): boolean {
    const { key } = map.options
    const maps = this.#active.get(key)
    if (!maps?.delete(map)) return false
    if (maps.size === 0) this.#active.delete(key)
    return true
  }

  charge(call: Call, ms: number) {
    // While nothing waits, no caller has had less than another.
    if (this.size === 0) return
    const caller = this.#findCaller(call)
    caller.order?.remove(caller)
    caller.charge(call, ms, this.#clockMs + MAX_CALLER_DEBT_MS)
    this.#place(caller)
  }

  *[Symbol.iterator]() {
    for (const caller of this.#callers.values()) {
      yield* caller
      this.#forgetIfSettled(caller)
    }
  }

  #findCaller({ options: { key } }: QueueEntry): Caller {
    let caller = this.#callers.get(key)
    if (!caller) {
      caller = new Caller(key, this.#clockMs)
      this.#callers.set(key, caller)
    } else if (caller.isEmpty) caller.usedMs = Math.max(caller.usedMs, this.#clockMs)
    return caller
  }

  #added(entry: QueueEntry, caller: Caller) {
    this.size++
    this.waitMs += entry.estimateMs ?? 0
    this.#place(caller)
  }

  /** Moves the caller to the order that its entries require, unless it is there. */
  #place(caller: Caller) {
    const order = caller.isReady ? this.#ready : caller.maps.first ? this.#mapping : undefined
    if (caller.order === order) return
    caller.order?.remove(caller)
    order?.add(caller)
  }

  #forgetIfSettled(caller: Caller) {
    if (caller.isEmpty && caller.usedMs <= this.#clockMs) this.#callers.delete(caller.key)
  }
}

/**
 * The entries of one caller, in the order of its calls. Its runs and its maps get equal shares of
 * its time, so that a short run never waits for a long map.
 */
export class Caller {
  readonly key: string | undefined
  readonly runs = new EntryList<Call>()
  /** The chunks of maps that have begun. */
  readonly chunks = new EntryList<Call>()
  /** Maps that have not begun. */
  readonly maps = new EntryList<MapEntry>()
  /** How much of the workers' time it has used. */
  usedMs: number
  order: CallerOrder | undefined = undefined
  /** How much more time its runs have used than its maps. */
  #imbalanceMs = 0

  constructor(key: string | undefined, usedMs: number) {
    this.key = key
    this.usedMs = usedMs
  }

  get isReady() {
    return this.runs.first !== undefined || this.chunks.first !== undefined
  }

  get isEmpty() {
    return !this.isReady && !this.maps.first
  }

  peek(mayBeginMap: boolean): QueueEntry | undefined {
    const run = this.runs.first
    const map = this.chunks.first ?? (mayBeginMap ? this.maps.first : undefined)
    return !run || (map && this.#imbalanceMs > 0) ? map : run
  }

  findList(entry: QueueEntry): EntryList<QueueEntry> {
    if (entry instanceof MapEntry) return this.maps
    return (entry as Call).map ? this.chunks : this.runs
  }

  /** @param mostMs the most that it may have used; anything beyond is forgiven. */
  charge({ map }: Call, ms: number, mostMs: number): void {
    this.usedMs = Math.max(this.usedMs, Math.min(this.usedMs + ms, mostMs))
    const imbalanceMs = this.#imbalanceMs + (map ? -ms : ms)
    const most = MAX_RUN_MAP_IMBALANCE_MS
    this.#imbalanceMs = Math.max(-most, Math.min(imbalanceMs, most))
  }

  *[Symbol.iterator]() {
    yield* this.chunks
    yield* this.runs
    yield* this.maps
  }
}

/** Callers by the time that they have used, the least first; of equals, the one added first. */
export class CallerOrder {
  readonly #callers: Caller[] = []

  get first(): Caller | undefined {
    return this.#callers[0]
  }

  find(matches: (caller: Caller) => boolean): Caller | undefined {
    return this.#callers.find(matches)
  }

  add(caller: Caller): void {
    caller.order = this
    const index = this.#bisect((usedMs) => usedMs > caller.usedMs)
    if (index === this.#callers.length) this.#callers.push(caller)
    else this.#callers.splice(index, 0, caller)
  }

  remove(caller: Caller): void {
    caller.order = undefined
    const index = this.#callers.indexOf(
      caller,
      this.#bisect((usedMs) => usedMs >= caller.usedMs),
    )
    if (index === 0) this.#callers.shift()
    else this.#callers.splice(index, 1)
  }

  /** The index of the first caller whose used time matches, or the number of callers. */
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

/** A doubly linked list through the entries: a Set slows down when thousands leave at its front. */
class EntryList<Item extends QueueEntry> {
  first: Item | undefined = undefined
  #last: Item | undefined

  append(item: Item): void {
    item.list = this
    item.previous = this.#last
    if (this.#last) this.#last.next = item
    else this.first = item
    this.#last = item
  }

  prepend(item: Item): void {
    item.list = this
    item.next = this.first
    if (this.first) this.first.previous = item
    else this.#last = item
    this.first = item
  }

  delete(item: Item): boolean {
    if (item.list !== this) return false
    const { previous, next } = item
    if (previous) previous.next = next
    else this.first = next as Item | undefined
    if (next) next.previous = previous
    else this.#last = previous as Item | undefined
    item.list = item.previous = item.next = undefined
    return true
  }

  *[Symbol.iterator]() {
    for (let item = this.first; item; ) {
      // Read before the reader may delete the item.
      const next = item.next as Item | undefined
      yield item
      item = next
    }
  }
}
