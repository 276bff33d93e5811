import type { Call } from './call.ts'
import { type Entry, MapEntry } from './entry.ts'

/**
 * How far the runs of a caller may get ahead of its maps, or behind them, in milliseconds of a
 * thread.
 */
const MAX_BALANCE_MS = 100

/**
 * What one caller waits for, in the order of its calls. Its runs and its maps get equal shares of
 * its time, so that no short task waits for a long map.
 */
export class Caller {
  readonly key: string | undefined
  readonly runs = new List<Call>()
  /** Chunks of maps that have begun. */
  readonly chunks = new List<Call>()
  /** Maps that have not begun. */
  readonly maps = new List<MapEntry>()
  /** How much of the threads' time it has used, on the clock of its priority. */
  usedMs: number
  /** The turns that it is in. */
  turns: Turns | undefined
  /** By how much its runs have used more time than its maps. */
  #balanceMs = 0

  constructor(key: string | undefined, usedMs: number) {
    this.key = key
    this.usedMs = usedMs
  }

  /** Whether a thread could begin one of its calls now. */
  get isReady() {
    return this.runs.first !== undefined || this.chunks.first !== undefined
  }

  get isEmpty() {
    return !this.isReady && !this.maps.first
  }

  /** @param mayBegin whether its next map may begin. */
  next(mayBegin: boolean): Entry | undefined {
    const run = this.runs.first
    const map = this.chunks.first ?? (mayBegin ? this.maps.first : undefined)
    return !run || (map && this.#balanceMs > 0) ? map : run
  }

  listOf(entry: Entry): List<Entry> {
    if (entry instanceof MapEntry) return this.maps
    return (entry as Call).map ? this.chunks : this.runs
  }

  /** @param mostMs how much it may have used at most: what is beyond that is forgiven. */
  charge({ map }: Call, ms: number, mostMs: number): void {
    this.usedMs = Math.max(this.usedMs, Math.min(this.usedMs + ms, mostMs))
    const balanceMs = this.#balanceMs + (map ? -ms : ms)
    this.#balanceMs = Math.max(-MAX_BALANCE_MS, Math.min(balanceMs, MAX_BALANCE_MS))
  }

  *[Symbol.iterator]() {
    yield* this.chunks
    yield* this.runs
    yield* this.maps
  }
}

/**
 * Callers, the one that has used the least time first; of several, the one whose turn was longest
 * ago.
 */
export class Turns {
  readonly #callers: Caller[] = []

  get first(): Caller | undefined {
    return this.#callers[0]
  }

  find(matches: (caller: Caller) => boolean): Caller | undefined {
    return this.#callers.find(matches)
  }

  add(caller: Caller): void {
    caller.turns = this
    const place = this.#firstWhere((usedMs) => usedMs > caller.usedMs)
    if (place === this.#callers.length) this.#callers.push(caller)
    else this.#callers.splice(place, 0, caller)
  }

  remove(caller: Caller): void {
    caller.turns = undefined
    const place = this.#callers.indexOf(
      caller,
      this.#firstWhere((usedMs) => usedMs >= caller.usedMs),
    )
    if (place === 0) this.#callers.shift()
    else this.#callers.splice(place, 1)
  }

  /** By bisection: where the first caller is whose used time matches, or the end. */
  #firstWhere(matches: (usedMs: number) => boolean): number {
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

/**
 * A doubly linked list through the entries themselves: a Set slows down when thousands leave it at
 * its front.
 */
export class List<Item extends Entry> {
  first: Item | undefined
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
    // Where it goes on is looked up first: the reader may take this one out.
    for (let item = this.first; item; ) {
      const next = item.next as Item | undefined
      yield item
      item = next
    }
  }
}
