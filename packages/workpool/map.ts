import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { inspect } from 'node:util'
import { Call, MapEntry, type WorkOptions } from './call.ts'
import { DeadlineError, TaskError } from './errors.ts'
import {
  CHUNK_MS,
  CHUNK_TIME_WEIGHT,
  CHUNKS_AHEAD_OF_REMOTE,
  CHUNKS_PER_THREAD,
  MAX_CHUNK_GROWTH,
  MAX_CHUNK_ITEMS,
  MAX_REMOTE_CHUNK_ITEMS,
  MAX_REMOTE_CHUNK_MS,
  MIN_CHUNK_MS,
  PIECES_PER_THREAD,
  REMOTE_CHUNK_MS,
  SOURCE_STALL_MS,
  STREAM_CHUNKS_PER_THREAD,
  willMissDeadline,
} from './policy.ts'
import type { Remote, RemoteAnswer, RemoteWork } from './remote.ts'
import type { Scheduler } from './scheduler.ts'
import type { Task, TaskOptions } from './task.ts'

export type Items<Item> = Iterable<Item> | AsyncIterable<Item>

export interface MapOptions extends WorkOptions {
  /** Maximum threads, those of other processes included; all if absent. */
  concurrency?: number
  /** Called after each chunk. */
  onProgress?: (progress: { done: number; total: number | undefined }) => void
}

interface MapWork<Input, Output> {
  scheduler: Scheduler
  task: Task<Input, Output>
  items: Items<Input>
  threads: number
  options: MapOptions
}

/** Starts once its results are wanted, by `await`, `for await` or `reduce()`. */
export class ParallelMap<Input, Output> implements PromiseLike<Output[]>, AsyncIterable<Output> {
  readonly #work: MapWork<Input, Output>
  #all: Promise<Output[]> | undefined

  constructor(work: MapWork<Input, Output>) {
    const { threads, options } = work
    const { concurrency = threads } = options
    // NaN would start no chunk, as if there were no items.
    if (Number.isNaN(concurrency))
      throw new RangeError('Expected `concurrency` to be a number of threads, got NaN')
    const atMost = Math.floor(Math.min(threads, concurrency))
    this.#work = { ...work, threads: Math.max(1, atMost) }
  }

  // biome-ignore lint/suspicious/noThenProperty: a map is awaited for its results
  then<Result = Output[], Failure = never>(
    onFulfilled?: ((outputs: Output[]) => Result | PromiseLike<Result>) | null,
    onRejected?: ((reason: unknown) => Failure | PromiseLike<Failure>) | null,
  ): Promise<Result | Failure> {
    this.#all ??= Array.fromAsync(new ChunkScheduler(this.#work, 'each').outputs()).then((all) =>
      all.flat(),
    )
    return this.#all.then(onFulfilled, onRejected)
  }

  /** Yields results in order; leaving the loop cancels the rest. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Output> {
    const maxAhead = this.#work.threads * STREAM_CHUNKS_PER_THREAD
    for await (const outputs of new ChunkScheduler(this.#work, 'each', maxAhead).outputs())
      yield* outputs
  }

  /**
   * @param initial joined first; the result if there are no items.
   * @throws Error when the task has no `join`.
   */
  async reduce(initial: Output): Promise<Output> {
    const { task } = this.#work
    const join = task.join as TaskOptions<Input, Output>['join']
    if (!join)
      throw new Error(`The outputs of ${task.name} cannot be reduced: its contract has no join`)
    let result = initial
    for await (const outputs of new ChunkScheduler(this.#work, 'joined').chunks())
      for (const output of outputs) result = join(result, output)
    return result
  }
}

/** Runs a chunk of another process's map. */
export async function runChunk(
  scheduler: Scheduler,
  { task, mode, input }: RemoteWork,
  options: WorkOptions,
): Promise<RemoteAnswer> {
  const name = { name: task, split: undefined, join: undefined }
  let items = 0
  const takeInTime = function* () {
    const endAt = performance.now() + MAX_REMOTE_CHUNK_MS
    for (const item of input as unknown[]) {
      items++
      yield item
      if (performance.now() > endAt) return
    }
  }
  const work = { scheduler, task: name, items: takeInTime(), threads: 1, options }
  const chunks = new ChunkScheduler<unknown, unknown>(work, mode as 'each' | 'joined')
  const outputs = await Array.fromAsync(chunks.chunks())
  return { outcome: 'done', output: outputs.flat(), items, runMs: chunks.runMs }
}

interface ChunkResult<Output> {
  output: Output[]
  /** Fewer than sent if the chunk took too long or was lost. */
  items: number
  runMs: number
  /** About how many items another process would take. */
  fits?: number
}

interface Remainder<Input, Output> {
  items: Input[]
  firstIndex: number
  resolve: (outputs: Promise<Output[]>) => void
}

/**
 * Runs a map's items, or pieces of them, in chunks sized by the time per item, once it is the map's
 * turn.
 */
class ChunkScheduler<Input, Output> {
  readonly #work: MapWork<Input, Output>
  readonly #mode: 'each' | 'joined'
  /** Of chunks not read. */
  readonly #maxAhead: number
  readonly #maxInFlight: number
  readonly #remote: Remote | undefined
  readonly #maxRemoteCalls: number
  readonly #entry: MapEntry
  readonly #turn = Promise.withResolvers<void>()
  /** Of split items: the number of pieces up to the end of each. */
  #ends: number[] | undefined
  #source: Source<Input> | undefined
  readonly #calls = new Set<Call>()
  readonly #remoteCalls = new Set<Call>()
  /** Unread, in order. */
  readonly #results: Promise<Output[]>[] = []
  readonly #remainders: Remainder<Input, Output>[] = []
  /** While an async source is asked. */
  #taking: PromiseWithResolvers<void> | undefined
  #failure: { reason: unknown } | undefined
  #startedAt = 0
  #begunAt = 0
  #remoteTimer: NodeJS.Timeout | undefined
  #taken = 0
  #done = 0
  #chunksDone = 0
  runMs = 0
  #lastSize = 1
  #maxRemoteItems: number | undefined
  #msPerItem: number | undefined

  constructor(
    work: MapWork<Input, Output>,
    mode: 'each' | 'joined',
    maxAhead = Number.POSITIVE_INFINITY,
  ) {
    const { task, threads, options } = work
    this.#work = work
    this.#mode = mode
    this.#maxAhead = maxAhead
    const { concurrency } = options
    this.#maxInFlight = concurrency === undefined ? threads * CHUNKS_PER_THREAD : threads
    this.#remote = options.distributed ? work.scheduler.remote : undefined
    this.#maxRemoteCalls = Math.floor(concurrency ?? Number.POSITIVE_INFINITY) - threads
    const parts = { begin: () => this.#begin(), countUnsent: () => this.#countUnsent() }
    this.#entry = new MapEntry(task.name, options, parts, (reason) => this.#fail(reason))
    this.#turn.promise.catch(() => {})
  }

  async *outputs(): AsyncGenerator<Output[]> {
    const join = this.#work.task.join as TaskOptions<Input, Output>['join']
    let pieces = 0
    let item = 0
    let joined: Output[] = []
    for await (const outputs of this.chunks()) {
      if (!this.#ends || !join) {
        yield outputs
        continue
      }
      const whole: Output[] = []
      for (const output of outputs) {
        joined = joined.length > 0 ? [join(joined[0] as Output, output)] : [output]
        if (++pieces !== this.#ends[item]) continue
        whole.push(...joined)
        joined = []
        item++
      }
      yield whole
    }
  }

  async *chunks(): AsyncGenerator<Output[]> {
    const { scheduler } = this.#work
    this.#startedAt = performance.now()
    try {
      scheduler.add(this.#entry)
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
      this.#entry.stopWatching?.()
      clearInterval(this.#remoteTimer)
      if (!this.#source?.isExhausted) this.#source?.close()
      if (this.#calls.size + this.#remoteCalls.size > 0 || this.#taking)
        this.#fail(new Error('Nobody reads the rest'))
      const isComplete = this.#source?.isExhausted && !this.#failure
      scheduler.endMap(this.#entry, isComplete ? this.runMs : undefined)
    }
  }

  #begin() {
    try {
      this.#source = openSource(this.#split())
      this.#begunAt = performance.now()
      // An item without a result is worth sending by then, and other processes come and go.
      if (this.#remote) this.#remoteTimer = setInterval(() => this.#advance(), REMOTE_CHUNK_MS)
      this.#advance()
    } catch (error) {
      this.#fail(error)
    }
    this.#turn.resolve()
  }

  /** Items that are too few for all threads. */
  #split(): Items<Input> {
    const { task, items, threads } = this.#work
    if (!task.split || !Array.isArray(items)) return items
    const places = this.#remote?.places(task.name) ?? 0
    const parts = Math.ceil(((threads + places) * PIECES_PER_THREAD) / items.length)
    if (parts <= 1) return items
    const split = task.split as NonNullable<TaskOptions<Input, Output>['split']>
    const pieces = items.map((item: Input) => {
      const its = split(item, parts)
      return its.length > 0 ? its : [item]
    })
    let end = 0
    this.#ends = pieces.map(({ length }) => {
      end += length
      return end
    })
    return pieces.flat()
  }

  #countUnsent(): number {
    const { items } = this.#work
    if (!this.#source) return Array.isArray(items) ? items.length : 0
    let unsent = (this.#source.total ?? this.#taken) - this.#taken
    for (const remainder of this.#remainders) unsent += remainder.items.length
    return unsent
  }

  #fail(reason: unknown) {
    if (this.#failure) return
    this.#failure = { reason }
    this.#turn.reject(reason)
    this.#taking?.reject(reason)
    for (const { resolve } of this.#remainders.splice(0)) resolve(Promise.reject(reason))
    for (const call of [...this.#calls, ...this.#remoteCalls])
      this.#work.scheduler.stop(call, 'cancelled', reason)
  }

  #advance() {
    while (this.#calls.size < this.#maxLocalCalls && !this.#failure) {
      const remainder = this.#remainders.shift()
      if (remainder) remainder.resolve(this.#launch(remainder.items, remainder.firstIndex))
      else if (this.#source && this.#mayTake) this.#take(this.#source, this.#nextSize())
      else break
    }
    if (this.#remote) this.#advanceRemotely(this.#remote)
    // Lets the caller's next map use idle threads.
    const isTail = this.#remainders.length === 0 && this.#source?.isExhausted
    if (this.#calls.size === 0 || isTail) this.#work.scheduler.pauseMap(this.#entry)
  }

  /** Of long items, none waits for a thread here while others could serve it. */
  get #maxLocalCalls() {
    const isShort = this.#msPerItem !== undefined && this.#msPerItem < CHUNK_MS
    return !this.#remote || isShort ? this.#maxInFlight : this.#work.threads
  }

  #advanceRemotely(remote: Remote) {
    const { task } = this.#work
    for (let places = remote.places(task.name); places > 0 && !this.#failure; places--) {
      const size = this.#nextRemoteSize()
      if (size === 0 || this.#remoteCalls.size >= this.#maxRemoteCalls) return
      if (!this.#source || !this.#mayTake) return
      this.#take(this.#source, size, true)
    }
  }

  /** 0 if the items left are better served here. */
  #nextRemoteSize(): number {
    const { threads } = this.#work
    const msPerItem = this.#expectedMsPerItem ?? this.#msSoFar
    if (msPerItem === undefined) return 0
    const worthSending = Math.ceil(REMOTE_CHUNK_MS / msPerItem)
    // A few items say little of many.
    const surelyLong = this.#done * MAX_CHUNK_GROWTH || MAX_REMOTE_CHUNK_ITEMS
    if (worthSending > Math.min(surelyLong, MAX_REMOTE_CHUNK_ITEMS)) return 0
    const size = Math.min(worthSending, this.#maxRemoteItems ?? worthSending)
    const left = (this.#source?.total ?? Number.POSITIVE_INFINITY) - this.#taken
    // Threads here would serve the last ones sooner.
    return left >= (size === 1 ? 1 : size * (threads + 1)) ? size : 0
  }

  get #expectedMsPerItem(): number | undefined {
    const { scheduler, task } = this.#work
    return this.#msPerItem ?? scheduler.runTimes.find({ kind: 'chunk', task: task.name })?.averageMs
  }

  get #msSoFar(): number | undefined {
    const ms = performance.now() - this.#begunAt
    return ms < REMOTE_CHUNK_MS ? undefined : ms
  }

  get #mayTake() {
    // Results here come sooner than those of chunks sent before them.
    const maxAhead = this.#maxAhead + this.#remoteCalls.size * CHUNKS_AHEAD_OF_REMOTE
    return !this.#source?.isExhausted && !this.#taking && this.#results.length < maxAhead
  }

  #take(source: Source<Input>, size: number, isRemote = false) {
    const items = source.take(size)
    if (items instanceof Promise) void this.#launchLater(items, isRemote)
    else this.#launchNext(items, isRemote)
  }

  async #launchLater(items: Promise<Input[]>, isRemote: boolean) {
    const taking = Promise.withResolvers<void>()
    taking.promise.catch(() => {})
    this.#taking = taking
    try {
      this.#launchNext(await items, isRemote)
    } catch (error) {
      this.#fail(error)
    }
    this.#taking = undefined
    taking.resolve()
    this.#advance()
  }

  /** Chunks shrink towards the end, so that threads finish together. */
  #nextSize(): number {
    const { threads } = this.#work
    const msPerItem = this.#expectedMsPerItem
    if (msPerItem === undefined) return 1
    const left = (this.#source?.total ?? Number.POSITIVE_INFINITY) - this.#taken
    const share = left / (threads * CHUNKS_PER_THREAD)
    const size = Math.min(
      CHUNK_MS / msPerItem,
      Math.max(share, MIN_CHUNK_MS / msPerItem),
      this.#lastSize * MAX_CHUNK_GROWTH,
      MAX_CHUNK_ITEMS,
    )
    return Math.max(1, Math.floor(size))
  }

  #launchNext(items: Input[], isRemote: boolean) {
    if (items.length === 0) return
    this.#results.push(this.#launch(items, this.#taken, isRemote))
    this.#taken += items.length
    if (!isRemote) this.#lastSize = items.length
  }

  #launch(items: Input[], firstIndex: number, isRemote = false): Promise<Output[]> {
    const outputs = this.#serve(items, firstIndex, isRemote)
    outputs.catch((error) => this.#fail(error))
    return outputs
  }

  async #serve(items: Input[], firstIndex: number, isRemote: boolean): Promise<Output[]> {
    const chunk = await this.#run(items, firstIndex, isRemote)
    if (chunk.items > 0) this.#finished(chunk)
    if (chunk.fits) this.#maxRemoteItems = Math.min(chunk.fits, this.#maxRemoteItems ?? chunk.fits)
    if (this.#failure) throw this.#failure.reason
    const { output, items: served } = chunk
    const rest = this.#addRemainders(items.slice(served), firstIndex + served)
    this.#advance()
    return rest.length > 0 ? [output, ...(await Promise.all(rest))].flat() : output
  }

  #addRemainders(items: Input[], firstIndex: number): Promise<Output[]>[] {
    const size = this.#nextSize()
    const outputs: Promise<Output[]>[] = []
    for (let from = 0; from < items.length; from += size) {
      const { promise, resolve } = Promise.withResolvers<Output[]>()
      promise.catch(() => {})
      const cut = items.slice(from, from + size)
      this.#remainders.push({ items: cut, firstIndex: firstIndex + from, resolve })
      outputs.push(promise)
    }
    return outputs
  }

  async #run(items: Input[], firstIndex: number, isRemote: boolean): Promise<ChunkResult<Output>> {
    if (this.#failure) throw this.#failure.reason
    const { scheduler, task, options } = this.#work
    const { priority, key, requestId, trace } = options
    const { promise, resolve, reject } = Promise.withResolvers<ChunkResult<Output>>()
    const work = { task: task.name, mode: this.#mode, input: items, items: items.length }
    // Without limits: watching them costs a tenth of a round trip.
    const callOptions = { priority, key, requestId, trace }
    const call = new Call({ ...work, map: this.#entry }, callOptions, resolve, reject)
    const calls = isRemote ? this.#remoteCalls : this.#calls
    calls.add(call)
    try {
      if (isRemote) scheduler.addRemoteChunk(call)
      else scheduler.addChunk(call)
      return await promise
    } catch (error) {
      if (!this.#failure && error instanceof TaskError && error.item !== undefined)
        throw new TaskError(task.name, error.cause, this.#toItemIndex(firstIndex + error.item))
      this.#fail(error)
      throw error
    } finally {
      calls.delete(call)
    }
  }

  #finished({ items, runMs }: ChunkResult<Output>) {
    this.#done += items
    this.#chunksDone++
    this.runMs += runMs
    const newest = runMs / items
    const averageMs = this.#msPerItem ?? newest
    // Heavier items count at once, so that chunks stay short.
    this.#msPerItem = Math.max(newest, averageMs + CHUNK_TIME_WEIGHT * (newest - averageMs))
    const total = Array.isArray(this.#work.items) ? this.#work.items.length : undefined
    this.#work.options.onProgress?.({ done: this.#toItemIndex(this.#done), total })
    this.#failIfHopeless(newest)
  }

  #toItemIndex(index: number): number {
    if (!this.#ends) return index
    const item = this.#ends.findIndex((end) => index < end)
    return item === -1 ? this.#ends.length : item
  }

  /** It would only take threads from others. */
  #failIfHopeless(newestMs: number) {
    const { task, threads, options } = this.#work
    const { timeoutMs } = options
    const total = this.#source?.total
    // Only pieces surely take similar times.
    if (!this.#ends || timeoutMs === undefined || total === undefined || this.#remote) return
    const elapsedMs = performance.now() - this.#startedAt
    // The first chunks ran before V8 compiled their code.
    const msPerItem = Math.min(newestMs, this.runMs / this.#done)
    const expectedMs = ((total - this.#done) * msPerItem) / threads
    if (!willMissDeadline(this.#chunksDone / threads, expectedMs, timeoutMs - elapsedMs)) return
    const percent = Math.round((100 * this.#done) / total)
    const late = `The task ${task.name} would take longer than ${timeoutMs} ms`
    this.#fail(
      new DeadlineError(`${late}: ${percent} % was done after ${Math.round(elapsedMs)} ms`),
    )
  }
}

interface Source<Item> {
  total?: number
  isExhausted: boolean
  /** None at the end. */
  take(count: number): Item[] | Promise<Item[]>
  /** Only called while there may be more. */
  close(): void
}

/** @throws TypeError when `items` is not iterable. */
function openSource<Item>(items: Items<Item>): Source<Item> {
  if (Array.isArray(items)) return openArray(items)
  const { [Symbol.iterator]: iterate, [Symbol.asyncIterator]: iterateAsync } = Object(items)
  if (typeof iterate === 'function') return openSync(iterate.call(items))
  if (typeof iterateAsync === 'function') return openAsync(iterateAsync.call(items))
  const got = inspect(items, { depth: 0 })
  throw new TypeError(`Expected an array, an iterable or an async iterable of items, got ${got}`)
}

function openArray<Item>(items: readonly Item[]): Source<Item> {
  let taken = 0
  return {
    total: items.length,
    isExhausted: items.length === 0,
    take(count) {
      const next = items.slice(taken, taken + count)
      taken += count
      this.isExhausted = taken >= items.length
      return next
    },
    close() {},
  }
}

const openSync = <Item>(iterator: Iterator<Item>): Source<Item> => ({
  isExhausted: false,
  take(count) {
    const next: Item[] = []
    while (next.length < count) {
      const { done, value } = iterator.next()
      this.isExhausted = done === true
      if (this.isExhausted) break
      next.push(value)
    }
    return next
  },
  close: () => iterator.return?.(),
})

function openAsync<Item>(iterator: AsyncIterator<Item>): Source<Item> {
  let pending: Promise<IteratorResult<Item>> | undefined
  return {
    isExhausted: false,
    async take(count) {
      const next: Item[] = []
      let stalled: Promise<undefined> | undefined
      while (next.length < count) {
        pending ??= iterator.next()
        // Only the first item may take long.
        const result = await (stalled ? Promise.race([pending, stalled]) : pending)
        if (!result) break
        pending = undefined
        this.isExhausted = result.done === true
        if (this.isExhausted) break
        next.push(result.value)
        stalled ??= sleep(SOURCE_STALL_MS, undefined, { ref: false })
      }
      return next
    },
    close: () => void Promise.resolve(iterator.return?.()).catch(() => {}),
  }
}
