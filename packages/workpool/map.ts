import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { inspect } from 'node:util'
import { Call, MapEntry, type WorkOptions } from './call.ts'
import { CancelledError, DeadlineError, TaskError } from './errors.ts'
import {
  CHUNK_MS,
  CHUNK_TIME_WEIGHT,
  CHUNKS_PER_THREAD,
  MAX_CHUNK_GROWTH,
  MAX_CHUNK_ITEMS,
  MIN_CHUNK_MS,
  PIECES_PER_THREAD,
  SOURCE_STALL_MS,
  STREAM_CHUNKS_PER_THREAD,
  willMissDeadline,
} from './policy.ts'
import type { Scheduler } from './scheduler.ts'
import type { Task, TaskOptions } from './task.ts'

export type Items<Item> = Iterable<Item> | AsyncIterable<Item>

export interface MapOptions extends WorkOptions {
  /** The maximum number of threads at once, at least one; all threads if absent. */
  concurrency?: number
  /** Receives, after each chunk, how many items are done, and the total where it is known. */
  onProgress?: (progress: { done: number; total: number | undefined }) => void
}

/** The pieces that each item was split into. */
type Pieces<Input> = readonly (readonly Input[])[]

/**
 * The result of `pool.map()`, which starts once its results are wanted: `await` it for all of them
 * in order, read them with `for await` as they come, or `reduce()` them to one.
 */
export class ParallelMap<Input, Output> implements PromiseLike<Output[]>, AsyncIterable<Output> {
  readonly #scheduler: Scheduler
  readonly #task: Task<Input, Output>
  readonly #items: Items<Input>
  readonly #threads: number
  readonly #options: MapOptions
  #all: Promise<Output[]> | undefined

  constructor(
    scheduler: Scheduler,
    task: Task<Input, Output>,
    items: Items<Input>,
    threads: number,
    options: MapOptions,
  ) {
    const { concurrency = threads } = options
    // Nothing would start, and a map without results looks like one without items.
    if (Number.isNaN(concurrency))
      throw new RangeError('Expected `concurrency` to be a number of threads, got NaN')
    this.#scheduler = scheduler
    this.#task = task
    this.#items = items
    this.#threads = Math.max(1, Math.floor(Math.min(threads, concurrency)))
    this.#options = options
  }

  /** All results, in order. */
  // biome-ignore lint/suspicious/noThenProperty: a map is awaited for its results
  then<Result = Output[], Failure = never>(
    onFulfilled?: ((outputs: Output[]) => Result | PromiseLike<Result>) | null,
    onRejected?: ((reason: unknown) => Failure | PromiseLike<Failure>) | null,
  ): Promise<Result | Failure> {
    this.#all ??= this.#collect()
    return this.#all.then(onFulfilled, onRejected)
  }

  /** The results in order, as they come. Leaving the loop cancels the rest of the map. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Output> {
    for await (const outputs of this.#outputs(this.#threads * STREAM_CHUNKS_PER_THREAD))
      yield* outputs
  }

  /**
   * All results joined to one by the task's `join`: on the threads within each chunk, and here from
   * chunk to chunk.
   *
   * @param initial is joined before the first result, and is the result of a map without items.
   * @throws Error when the task has no `join`.
   */
  async reduce(initial: Output): Promise<Output> {
    const join = this.#join
    if (!join)
      throw new Error(
        `The outputs of ${this.#task.name} cannot be reduced: its contract has no join`,
      )
    let result = initial
    for await (const outputs of this.#chunks('joined', Number.POSITIVE_INFINITY, this.#split()))
      for (const output of outputs) result = join(result, output)
    return result
  }

  get #join() {
    return this.#task.join as TaskOptions<Input, Output>['join']
  }

  async #collect(): Promise<Output[]> {
    const all: Output[][] = []
    for await (const outputs of this.#outputs(Number.POSITIVE_INFINITY)) all.push(outputs)
    return all.flat()
  }

  #outputs(maxAhead: number): AsyncIterable<Output[]> {
    const split = this.#split()
    const chunks = this.#chunks('each', maxAhead, split)
    return split && this.#join ? joinPieces(chunks, split, this.#join) : chunks
  }

  /** Splits the items, when first called, if they are too few to keep all threads busy. */
  #split(): (() => Pieces<Input>) | undefined {
    const split = this.#task.split as TaskOptions<Input, Output>['split']
    const items = this.#items
    if (!split || !Array.isArray(items)) return undefined
    const parts = Math.ceil((this.#threads * PIECES_PER_THREAD) / items.length)
    if (parts <= 1) return undefined
    let pieces: Pieces<Input> | undefined
    const splitItem = (item: Input) => {
      const its = split(item, parts)
      return its.length > 0 ? its : [item]
    }
    return () => (pieces ??= items.map(splitItem))
  }

  #chunks(
    mode: 'each' | 'joined',
    maxAhead: number,
    split: (() => Pieces<Input>) | undefined,
  ): ChunkScheduler<Input, Output> {
    const { onProgress, concurrency } = this.#options
    const items = this.#items
    const total = Array.isArray(items) ? items.length : undefined
    const toItemIndex = (index: number) => (split ? findItemIndex(index, split()) : index)
    return new ChunkScheduler({
      scheduler: this.#scheduler,
      task: this.#task.name,
      openSource: () => openSource(split?.().flat() ?? items),
      mode,
      options: this.#options,
      threads: this.#threads,
      isEven: split !== undefined,
      maxInFlight: concurrency === undefined ? this.#threads * CHUNKS_PER_THREAD : this.#threads,
      maxAhead,
      toItemIndex,
      onProgress: (done) => onProgress?.({ done: toItemIndex(done), total }),
    })
  }
}

/** The index of the item that a piece belongs to; the number of items beyond the last piece. */
function findItemIndex(pieceIndex: number, pieces: Pieces<unknown>): number {
  let end = 0
  for (const [item, { length }] of pieces.entries()) {
    end += length
    if (pieceIndex < end) return item
  }
  return pieces.length
}

/** Joins the outputs of each item's pieces, which may come in several chunks. */
async function* joinPieces<Input, Output>(
  chunks: AsyncIterable<Output[]>,
  split: () => Pieces<Input>,
  join: (left: Output, right: Output) => Output,
): AsyncGenerator<Output[]> {
  let item = 0
  let joined: Output[] = []
  let count = 0
  for await (const outputs of chunks) {
    const whole: Output[] = []
    for (const output of outputs) {
      joined = [count === 0 ? output : join(joined[0] as Output, output)]
      if (++count < (split()[item]?.length ?? 0)) continue
      whole.push(...joined)
      item++
      count = 0
    }
    if (whole.length > 0) yield whole
  }
}

interface ChunkSettings<Input> {
  scheduler: Scheduler
  task: string
  openSource: () => Source<Input>
  mode: 'each' | 'joined'
  options: WorkOptions
  threads: number
  /** Whether the items take about the same time each. */
  isEven: boolean
  /** How many chunks may wait or run at once. */
  maxInFlight: number
  /** How many chunks may be launched before the first of them is read. */
  maxAhead: number
  /** Finds the caller's item by its index in the source. */
  toItemIndex: (index: number) => number
  onProgress: (done: number) => void
}

interface ChunkResult<Output> {
  output: Output[]
  /** How many items were served: a chunk that takes too long gives the rest back. */
  items: number
  runMs: number
}

/** Items that a chunk gave back, which are launched before any others. */
interface Remainder<Input, Output> {
  items: Input[]
  firstIndex: number
  resolve: (outputs: Promise<Output[]>) => void
}

/**
 * Runs a source's items in chunks on several threads, and gives the outputs of each chunk in the
 * order of the items. The size of a chunk follows from how long items take. The first error ends
 * the rest. The source is not even opened before it is the map's turn.
 */
class ChunkScheduler<Input, Output> implements AsyncIterable<Output[]> {
  readonly #settings: ChunkSettings<Input>
  readonly #entry: MapEntry
  /** Without signal and time: listening for each chunk costs a tenth of a chunk's round trip. */
  readonly #callOptions: WorkOptions
  readonly #turn = Promise.withResolvers<void>()
  #source: Source<Input> | undefined
  /** Waiting or running. */
  readonly #calls = new Set<Call>()
  /** Launched and not read, in order. */
  readonly #results: Promise<Output[]>[] = []
  readonly #remainders: Remainder<Input, Output>[] = []
  /** Resolves once the items that an async source was asked for are launched. */
  #taking: PromiseWithResolvers<void> | undefined
  #isExhausted = false
  #failure: { reason: unknown } | undefined
  #startedAt = 0
  #taken = 0
  #done = 0
  #chunksDone = 0
  #runMs = 0
  #lastSize = 1
  /** Of this map's chunks, or else of earlier maps. */
  #msPerItem: number | undefined
  #isMeasured = false

  constructor(settings: ChunkSettings<Input>) {
    const { task, mode, options, scheduler } = settings
    const { priority, key, requestId } = options
    this.#settings = settings
    this.#callOptions = { priority, key, requestId }
    this.#entry = new MapEntry(
      task,
      options,
      () => this.#begin(),
      (reason) => this.#fail(reason),
    )
    this.#msPerItem = scheduler.msPerItem(task, mode)
    // Nobody waits for it when the scheduler refuses the map at once.
    this.#turn.promise.catch(() => {})
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Output[]> {
    const { scheduler, options } = this.#settings
    options.signal?.throwIfAborted()
    this.#startedAt = performance.now()
    const stopWatching = this.#entry.watchLimits((_, reason) => this.#fail(reason))
    try {
      scheduler.addMap(this.#entry)
      await this.#turn.promise
      for (;;) {
        this.#advance()
        if (this.#failure) throw this.#failure.reason
        if (this.#results.length > 0) {
          const outputs = await (this.#results[0] as Promise<Output[]>)
          this.#results.shift()
          yield outputs
        } else if (this.#taking) await this.#taking.promise
        else return
      }
    } finally {
      stopWatching?.()
      this.#source?.close()
      const isComplete = this.#isExhausted && !this.#failure
      if (this.#calls.size > 0 || this.#taking)
        this.#fail(new CancelledError('Nobody reads the rest'))
      scheduler.endMap(this.#entry, isComplete && !this.#failure ? this.#runMs : undefined)
    }
  }

  /** It is the map's turn. */
  #begin() {
    try {
      this.#source = this.#settings.openSource()
      this.#advance()
    } catch (error) {
      this.#fail(error)
    }
    this.#turn.resolve()
  }

  /** Ends everything with the first error. */
  #fail(reason: unknown) {
    if (this.#failure) return
    this.#failure = { reason }
    this.#turn.reject(reason)
    this.#taking?.reject(reason)
    for (const { resolve } of this.#remainders.splice(0)) resolve(Promise.reject(reason))
    for (const call of this.#calls) this.#settings.scheduler.stop(call, 'cancelled', reason)
  }

  #advance() {
    while (this.#calls.size < this.#settings.maxInFlight && !this.#failure) {
      const remainder = this.#remainders.shift()
      if (remainder) this.#resume(remainder)
      else if (this.#source && this.#mayTake) this.#take(this.#source)
      else break
    }
    if (this.#calls.size === 0 || this.#isTail) this.#settings.scheduler.pauseMap(this.#entry)
  }

  /** Nothing is left to launch: the caller's next map may begin on the threads that become idle. */
  get #isTail() {
    const isAllTaken = this.#isExhausted || this.#taken === this.#source?.total
    return this.#remainders.length === 0 && isAllTaken
  }

  get #mayTake() {
    const isAhead = this.#results.length >= this.#settings.maxAhead
    return !this.#isExhausted && !this.#taking && !isAhead
  }

  #take(source: Source<Input>) {
    const items = source.take(this.#nextSize())
    if (items instanceof Promise) void this.#launchLater(items)
    else this.#launchNext(items)
  }

  async #launchLater(items: Promise<Input[]>) {
    const taking = Promise.withResolvers<void>()
    // Nobody waits for it while there are results to read.
    taking.promise.catch(() => {})
    this.#taking = taking
    try {
      this.#launchNext(await items)
    } catch (error) {
      this.#fail(error)
    }
    this.#taking = undefined
    taking.resolve()
    this.#advance()
  }

  /** How many items the next chunk has: fewer towards the end, so that all threads end together. */
  #nextSize(): number {
    const msPerItem = this.#msPerItem
    if (msPerItem === undefined) return 1
    const left = (this.#source?.total ?? Number.POSITIVE_INFINITY) - this.#taken
    const share = left / (this.#settings.threads * CHUNKS_PER_THREAD)
    const size = Math.min(
      CHUNK_MS / msPerItem,
      Math.max(share, MIN_CHUNK_MS / msPerItem),
      this.#lastSize * MAX_CHUNK_GROWTH,
      MAX_CHUNK_ITEMS,
    )
    return Math.max(1, Math.floor(size))
  }

  #launchNext(items: Input[]) {
    if (items.length === 0) {
      this.#isExhausted = true
      return
    }
    const firstIndex = this.#taken
    this.#taken += items.length
    this.#lastSize = items.length
    this.#results.push(this.#launch(items, firstIndex))
  }

  /** Launches as many items as make a chunk by now, and keeps the others as the next remainder. */
  #resume({ items, firstIndex, resolve }: Remainder<Input, Output>) {
    const size = this.#nextSize()
    const rest = items.slice(size)
    const outputs = [this.#launch(items.slice(0, size), firstIndex)]
    if (rest.length > 0) outputs.push(this.#addRemainder(rest, firstIndex + size))
    resolve(Promise.all(outputs).then((parts) => parts.flat()))
  }

  #launch(items: Input[], firstIndex: number): Promise<Output[]> {
    const result = this.#run(items, firstIndex)
    const outputs = result.then(async ({ output, items: served }) => {
      if (served === items.length) return output
      return [...output, ...(await this.#addRemainder(items.slice(served), firstIndex + served))]
    })
    // What the source or `onProgress` throws ends the map, too.
    result.then((chunk) => this.#finished(chunk)).catch((error) => this.#fail(error))
    outputs.catch(() => {})
    return outputs
  }

  #addRemainder(items: Input[], firstIndex: number): Promise<Output[]> {
    const { promise, resolve } = Promise.withResolvers<Output[]>()
    this.#remainders.push({ items, firstIndex, resolve })
    promise.catch(() => {})
    return promise
  }

  async #run(items: Input[], firstIndex: number): Promise<ChunkResult<Output>> {
    if (this.#failure) throw this.#failure.reason
    const { scheduler, task, mode, toItemIndex } = this.#settings
    const { promise, resolve, reject } = Promise.withResolvers<ChunkResult<Output>>()
    const work = { task, mode, input: items, items: items.length, map: this.#entry }
    const call = new Call(work, this.#callOptions, resolve, reject)
    this.#calls.add(call)
    try {
      scheduler.addChunk(call)
      return await promise
    } catch (error) {
      // After another chunk has failed, the error is that one's.
      if (!this.#failure && error instanceof TaskError && error.item !== undefined)
        throw new TaskError(task, error.cause, toItemIndex(firstIndex + error.item))
      // At once, before the next turn of the loop that launches chunks.
      this.#fail(error)
      throw error
    } finally {
      this.#calls.delete(call)
    }
  }

  #finished({ items, runMs }: ChunkResult<Output>) {
    this.#done += items
    this.#chunksDone++
    this.#runMs += runMs
    const newest = runMs / items
    const averageMs = this.#isMeasured ? (this.#msPerItem ?? newest) : newest
    // Where items become heavier, the newest say more than the average.
    this.#msPerItem = Math.max(newest, averageMs + CHUNK_TIME_WEIGHT * (newest - averageMs))
    this.#isMeasured = true
    this.#settings.onProgress(this.#done)
    this.#failIfHopeless(newest)
    this.#advance()
  }

  /** Until its deadline, a map that is clear to miss it would only keep others from the threads. */
  #failIfHopeless(newestMs: number) {
    const { isEven, threads, task, options } = this.#settings
    const { timeoutMs } = options
    const total = this.#source?.total
    if (!isEven || timeoutMs === undefined || total === undefined) return
    const elapsedMs = performance.now() - this.#startedAt
    const progress = {
      chunks: this.#chunksDone,
      threads,
      itemsLeft: total - this.#done,
      // The lower one, because the first chunks ran before their code was compiled.
      msPerItem: Math.min(newestMs, this.#runMs / this.#done),
      timeLeftMs: timeoutMs - elapsedMs,
    }
    if (!willMissDeadline(progress)) return
    const done = `${Math.round((100 * this.#done) / total)} % was done after ${Math.round(elapsedMs)} ms`
    this.#fail(
      new DeadlineError(`The task ${task} would take longer than ${timeoutMs} ms: ${done}`),
    )
  }
}

/** Where a map takes its items from. */
interface Source<Item> {
  /** The number of all items, where it is known. */
  readonly total: number | undefined
  /** The next `count` items, or fewer; none at the end. */
  take(count: number): Item[] | Promise<Item[]>
  /** No more items will be taken. An iterator that has ended is neither asked again nor closed. */
  close(): void
}

/** @throws TypeError when `items` is not iterable. */
function openSource<Item>(items: Items<Item>): Source<Item> {
  if (Array.isArray(items)) return openArray(items)
  const { [Symbol.iterator]: iterate, [Symbol.asyncIterator]: iterateAsync } = Object(items)
  if (typeof iterate === 'function') return openIterable(items as Iterable<Item>)
  if (typeof iterateAsync === 'function') return openAsync(items as AsyncIterable<Item>)
  const got = inspect(items, { depth: 0 })
  throw new TypeError(`Expected an array, an iterable or an async iterable of items, got ${got}`)
}

function openArray<Item>(items: readonly Item[]): Source<Item> {
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

function openIterable<Item>(items: Iterable<Item>): Source<Item> {
  const iterator = items[Symbol.iterator]()
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

function openAsync<Item>(items: AsyncIterable<Item>): Source<Item> {
  const iterator = items[Symbol.asyncIterator]()
  /** An item that was asked for and did not come in time for its chunk. */
  let pending: Promise<IteratorResult<Item>> | undefined
  let isExhausted = false
  return {
    total: undefined,
    async take(count) {
      const next: Item[] = []
      let stalled: Promise<undefined> | undefined
      while (!isExhausted && next.length < count) {
        pending ??= iterator.next()
        // The first item may take its time; the others must follow soon.
        const result = await (stalled ? Promise.race([pending, stalled]) : pending)
        if (!result) break
        pending = undefined
        isExhausted = result.done === true
        if (isExhausted) break
        next.push(result.value)
        stalled ??= sleep(SOURCE_STALL_MS, undefined, { ref: false })
      }
      return next
    },
    close() {
      if (!isExhausted) Promise.resolve(iterator.return?.()).catch(() => {})
    },
  }
}
