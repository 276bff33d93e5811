import { setTimeout as sleep } from 'node:timers/promises'
import { inspect } from 'node:util'

export type Items<Item> = Iterable<Item> | AsyncIterable<Item>

/** How long a chunk waits for more items of a source that has none at the moment. */
const STALL_MS = 4

/** Where a map takes its items from, some at a time. */
export interface Source<Item> {
  /** How many there are in all, where that is known. */
  readonly total: number | undefined
  /** The next `count` items, or fewer; none at the end. */
  take(count: number): Item[] | Promise<Item[]>
  /** No more will be taken. */
  close(): void
}

/** @throws TypeError when nothing can be taken from `items`. */
export function sourceOf<Item>(items: Items<Item>): Source<Item> {
  if (Array.isArray(items)) return arraySource(items)
  const { [Symbol.iterator]: iterate, [Symbol.asyncIterator]: iterateAsync } = Object(items)
  if (typeof iterate === 'function') return iterableSource(items as Iterable<Item>)
  if (typeof iterateAsync === 'function') return asyncSource(items as AsyncIterable<Item>)
  throw new TypeError(
    `The items of a map are an array, an iterable or an async iterable, not ${inspect(items, { depth: 0 })}`,
  )
}

function arraySource<Item>(items: readonly Item[]): Source<Item> {
  let taken = 0
  return {
    total: items.length,
    take(count) {
      const next = items.slice(taken, taken + count)
      taken += next.length
      return next
    },
    close() {},
  }
}

function iterableSource<Item>(items: Iterable<Item>): Source<Item> {
  const iterator = items[Symbol.iterator]()
  /** It has said so: as with `for...of`, it is neither asked again nor closed. */
  let isExhausted = false
  return {
    total: undefined,
    take(count) {
      const next: Item[] = []
      while (!isExhausted && next.length < count) {
        const { done, value } = iterator.next()
        if (done) isExhausted = true
        else next.push(value)
      }
      return next
    },
    close() {
      if (!isExhausted) iterator.return?.()
    },
  }
}

function asyncSource<Item>(items: AsyncIterable<Item>): Source<Item> {
  const iterator = items[Symbol.asyncIterator]()
  /** Asked for, and not yet there when the last chunk was closed. */
  let coming: Promise<IteratorResult<Item>> | undefined
  let isExhausted = false
  return {
    total: undefined,
    async take(count) {
      const next: Item[] = []
      let stalled: Promise<undefined> | undefined
      while (!isExhausted && next.length < count) {
        coming ??= iterator.next()
        // The first may take its time; with it in hand, the others must come soon.
        const result = await (stalled ? Promise.race([coming, stalled]) : coming)
        if (!result) break
        coming = undefined
        isExhausted = result.done === true
        if (isExhausted) break
        next.push(result.value)
        stalled ??= sleep(STALL_MS, undefined, { ref: false })
      }
      return next
    },
    close() {
      if (!isExhausted) Promise.resolve(iterator.return?.()).catch(() => {})
    },
  }
}
