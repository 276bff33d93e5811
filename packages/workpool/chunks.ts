import { performance } from 'node:perf_hooks'
import { isHopeless } from './admission.ts'
import { Call, type CallOptions } from './call.ts'
import { MapEntry } from './entry.ts'
import { CancelledError, DeadlineError, TaskError } from './errors.ts'
import { watchLimits } from './limits.ts'
import type { Scheduler } from './scheduler.ts'
import type { Source } from './source.ts'

/**
 * How much work goes to a thread at once: many times what sending it costs, and not so much that
 * others wait for long.
 */
const CHUNK_MS = 8
/**
 * Towards the end chunks become smaller, so that all threads end together; less than that is not
 * worth a message.
 */
const MIN_CHUNK_MS = 0.25
/** More would hold up the event loop while they are copied. */
const MAX_ITEMS = 1_024
/**
 * How many times larger than the last a chunk may be: items that the compiler has not seen yet say
 * little.
 */
const MAX_GROWTH = 16
/** The chunk that a thread works on, and the next one. */
const CHUNKS_PER_THREAD = 2
/** Weight of the newest chunk in the moving average of the time that an item takes. */
const AVERAGE_WEIGHT = 0.3

export interface ChunksOptions
  extends Pick<CallOptions, 'signal' | 'timeoutMs' | 'priority' | 'key' | 'requestId'> {
  task: string
  mode: 'each' | 'joined'
  threads: number
  /** Its items take about the same time each. */
  isEven: boolean
  /** How many chunks may be in the works. */
  maxInFlight?: number | undefined
  /** How many chunks may be begun before the first of them is read. */
  maxAhead: number
  /** Told after each chunk how many items are done. */
  onProgress: (done: number) => void
  /** What errors call the item at this place. */
  nameOf: (place: number) => number
}

interface Result<Output> {
  output: Output[]
  /**
   * How many items it is of: those that follow came back, because they took longer than expected.
   */
  items: number
  runMs: number
}

/** Items that have to be launched before any others, and who waits for their outputs. */
interface Remainder<Input, Output> {
  items: Input[]
  /** The place of the first of them. */
  first: number
  resolve: (outputs: Promise<Output[]>) => void
}

/**
 * Runs a source's items in chunks, on several threads, and gives the outputs of each chunk in the
 * order of the items. How many make a chunk follows from how long they take. The first error ends
 * the rest. Nothing is taken from the source, nor is it even opened, before it is the map's turn.
 */
export class Chunks<Input, Output> implements AsyncIterable<Output[]> {
  readonly #pool: Scheduler
  readonly #openSource: () => Source<Input>
  #source: Source<Input> | undefined
  readonly #options: ChunksOptions
  readonly #maxInFlight: number
  /**
   * Of each chunk. Without a signal: to listen to one, and to stop listening, costs a tenth of a
   * chunk's way.
   */
  readonly #callOptions: CallOptions
  readonly #entry: MapEntry
  readonly #turn = Promise.withResolvers<void>()
  /** In the works. */
  readonly #calls = new Set<Call>()
  /** Begun and not read, in order. */
  readonly #results: Promise<Output[]>[] = []
  readonly #remainders: Remainder<Input, Output>[] = []
  #startedAt = 0
  #taken = 0
  #done = 0
  #chunksDone = 0
  /** What they took of the threads' time. */
  #ranMs = 0
  #lastSize = 1
  #msPerItem: number | undefined
  /** The same in the past, until there is one of today's. */
  readonly #pastMsPerItem: number | undefined
  /** The items of an asynchronous source that are on their way: resolves when they are launched. */
  #taking: PromiseWithResolvers<void> | undefined
  #isExhausted = false
  /** Why everything ends. */
  #failure: { reason: unknown } | undefined

  constructor(pool: Scheduler, openSource: () => Source<Input>, options: ChunksOptions) {
    const {
      task,
      mode,
      threads,
      maxInFlight = threads * CHUNKS_PER_THREAD,
      priority,
      key,
      requestId,
    } = options
    this.#pool = pool
    this.#openSource = openSource
    this.#options = options
    this.#maxInFlight = maxInFlight
    this.#callOptions = { priority, key, requestId }
    this.#entry = new MapEntry(
      task,
      options,
      () => this.#begin(),
      (reason) => this.#fail(reason),
    )
    this.#pastMsPerItem = pool.msPerItem(task, mode)
    // Nobody waits for it where the pool refuses at once.
    this.#turn.promise.catch(() => {})
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Output[]> {
    this.#options.signal?.throwIfAborted()
    const { task } = this.#options
    this.#startedAt = performance.now()
    const endWatch = watchLimits(
      this.#options,
      () => `The tasks ${task}`,
      (_, reason) => this.#fail(reason),
    )
    try {
      this.#pool.enter(this.#entry)
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
      endWatch?.()
      this.#source?.close()
      // What has nothing left in the works need not pay for an error.
      if (this.#calls.size > 0 || this.#taking)
        this.#fail(new CancelledError('Nobody reads the rest'))
      this.#pool.leave(this.#entry, this.#isExhausted && !this.#failure ? this.#ranMs : undefined)
    }
  }

  /** It is its turn. */
  #begin() {
    try {
      this.#source = this.#openSource()
      this.#advance()
    } catch (error) {
      this.#fail(error)
    }
    this.#turn.resolve()
  }

  /** Everything in flight ends with this error, the first one that comes. */
  #fail(reason: unknown) {
    if (this.#failure) return
    this.#failure = { reason }
    this.#turn.reject(reason)
    this.#taking?.reject(reason)
    for (const { resolve } of this.#remainders.splice(0)) resolve(Promise.reject(reason))
    for (const call of this.#calls) this.#pool.stop(call, 'cancelled', reason)
  }

  #advance() {
    while (this.#calls.size < this.#maxInFlight && !this.#failure) {
      const remainder = this.#remainders.shift()
      if (remainder) this.#resume(remainder)
      else if (this.#source && this.#mayTake()) this.#take(this.#source)
      else break
    }
    if (this.#calls.size === 0 || this.#isTail) this.#pool.pause(this.#entry)
  }

  /**
   * Nothing is left to launch: the next map of its caller may begin, on the threads that become
   * free.
   */
  get #isTail() {
    return (
      this.#remainders.length === 0 && (this.#isExhausted || this.#taken === this.#source?.total)
    )
  }

  #take(source: Source<Input>) {
    const items = source.take(this.#size())
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

  #mayTake() {
    return !this.#isExhausted && !this.#taking && this.#results.length < this.#options.maxAhead
  }

  /** How many items the next chunk has. */
  #size(): number {
    const msPerItem = this.#msPerItem ?? this.#pastMsPerItem
    if (msPerItem === undefined) return 1
    const { threads } = this.#options
    const left = (this.#source?.total ?? Number.POSITIVE_INFINITY) - this.#taken
    const evenly = Math.max(left / (threads * CHUNKS_PER_THREAD), MIN_CHUNK_MS / msPerItem)
    const size = Math.min(CHUNK_MS / msPerItem, evenly, this.#lastSize * MAX_GROWTH, MAX_ITEMS)
    return Math.max(1, Math.floor(size))
  }

  #launchNext(items: Input[]) {
    if (items.length === 0) {
      this.#isExhausted = true
      return
    }
    const first = this.#taken
    this.#taken += items.length
    this.#lastSize = items.length
    this.#results.push(this.#launch(items, first))
  }

  /** As many of them as make a chunk by now; the others are next. */
  #resume({ items, first, resolve }: Remainder<Input, Output>) {
    const size = this.#size()
    const rest = items.slice(size)
    const outputs = [this.#launch(items.slice(0, size), first)]
    if (rest.length > 0) outputs.push(this.#remainder(rest, first + size))
    resolve(Promise.all(outputs).then((parts) => parts.flat()))
  }

  #launch(items: Input[], first: number): Promise<Output[]> {
    const result = this.#call(items, first)
    const outputs = result.then(({ output, items: served }) => {
      if (served === items.length) return output
      return this.#remainder(items.slice(served), first + served).then((others) => [
        ...output,
        ...others,
      ])
    })
    // What the source or `onProgress` throws ends the map, too.
    result.then((its) => this.#finished(its)).catch((error) => this.#fail(error))
    outputs.catch(() => {})
    return outputs
  }

  #remainder(items: Input[], first: number): Promise<Output[]> {
    const { promise, resolve } = Promise.withResolvers<Output[]>()
    this.#remainders.push({ items, first, resolve })
    promise.catch(() => {})
    return promise
  }

  #finished({ items, runMs }: Result<Output>) {
    this.#done += items
    this.#chunksDone++
    this.#ranMs += runMs
    const newest = runMs / items
    this.#msPerItem ??= newest
    // Where items become heavier, the newest tell more than the average.
    this.#msPerItem = Math.max(
      newest,
      this.#msPerItem + AVERAGE_WEIGHT * (newest - this.#msPerItem),
    )
    this.#options.onProgress(this.#done)
    this.#checkTime(newest)
    this.#advance()
  }

  /**
   * Ends the map as soon as it is clear that it will be late: until its deadline it would only keep
   * others from the threads.
   */
  #checkTime(newestMs: number) {
    const { isEven, timeoutMs, threads, task } = this.#options
    const { total } = this.#source ?? {}
    if (!isEven || timeoutMs === undefined || total === undefined) return
    const elapsedMs = performance.now() - this.#startedAt
    const course = {
      chunks: this.#chunksDone,
      threads,
      itemsLeft: total - this.#done,
      // The lower one of what all took and what the newest took: the first ran before their code
      // was compiled.
      msPerItem: Math.min(newestMs, this.#ranMs / this.#done),
      timeLeftMs: timeoutMs - elapsedMs,
    }
    if (!isHopeless(course)) return
    const done = `${Math.round((100 * this.#done) / total)} % was done after ${Math.round(elapsedMs)} ms`
    this.#fail(
      new DeadlineError(`The tasks ${task} would take longer than ${timeoutMs} ms: ${done}`),
    )
  }

  /** @param first the place of the first of them. */
  async #call(items: Input[], first: number): Promise<Result<Output>> {
    if (this.#failure) throw this.#failure.reason
    const { task, mode, nameOf } = this.#options
    const { promise, resolve, reject } = Promise.withResolvers<Result<Output>>()
    const work = { task, mode, input: items, items: items.length, map: this.#entry }
    const call = new Call(work, this.#callOptions, resolve, reject)
    this.#calls.add(call)
    try {
      this.#pool.addChunk(call)
      return await promise
    } catch (error) {
      // Where another chunk has failed, this is that one's error.
      if (!this.#failure && error instanceof TaskError && error.item !== undefined)
        throw new TaskError(task, error.cause, nameOf(first + error.item))
      // At once: before the next turn of the loop that launches chunks.
      this.#fail(error)
      throw error
    } finally {
      this.#calls.delete(call)
    }
  }
}
