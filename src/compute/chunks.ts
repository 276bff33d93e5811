import { AppError } from '../errors.ts'
import { Call, type CallOptions } from './call.ts'
import { watchLimits } from './limits.ts'
import type { Pool } from './pool.ts'
import type { Source } from './source.ts'
import { TaskError } from './task-error.ts'

/** How much work goes to a thread at once: many times what sending it costs, and not so much that others wait for long. */
const CHUNK_MS = 8
/** Towards the end chunks become smaller, so that all threads end together; less than that is not worth a message. */
const MIN_CHUNK_MS = 0.25
/** More would hold up the event loop while they are copied. */
const MAX_ITEMS = 1_024
/** How many times larger than the last a chunk may be: items that the compiler has not seen yet say little. */
const MAX_GROWTH = 16
/** The chunk that a thread works on, and the next one. */
const CHUNKS_PER_THREAD = 2
/** Weight of the newest chunk in the moving average of the time that an item takes. */
const AVERAGE_WEIGHT = 0.3

export interface ChunksOptions extends Pick<CallOptions, 'signal' | 'timeoutMs' | 'priority' | 'key' | 'requestId'> {
  task: string
  mode: 'each' | 'joined'
  threads: number
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
  /** How many items it is of: those that follow came back, because they took longer than expected. */
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
 * Runs a source's items in chunks, on several threads, and gives the outputs of each chunk in the order of the items.
 * How many make a chunk follows from how long they take. The first error ends the rest.
 */
export class Chunks<Input, Output> implements AsyncIterable<Output[]> {
  readonly #pool: Pool
  readonly #source: Source<Input>
  readonly #options: ChunksOptions
  readonly #maxInFlight: number
  /** In the works. Without a signal each: to listen to one, and to stop listening, costs a tenth of a chunk's way. */
  readonly #calls = new Set<Call>()
  /** Begun and not read, in order. */
  readonly #results: Promise<Output[]>[] = []
  readonly #remainders: Remainder<Input, Output>[] = []
  #taken = 0
  #done = 0
  #lastSize = 1
  #msPerItem: number | undefined
  /** The same in the past, until there is one of today's. */
  readonly #pastMsPerItem: number | undefined
  /** The items of an asynchronous source that are on their way: resolves when they are launched. */
  #taking: PromiseWithResolvers<void> | undefined
  #isExhausted = false
  /** Why everything ends. */
  #failure: { reason: unknown } | undefined
  /** The pool has taken a chunk on, so it does not refuse the others. */
  #isAccepted = false

  constructor(pool: Pool, source: Source<Input>, options: ChunksOptions) {
    this.#pool = pool
    this.#source = source
    this.#options = options
    this.#maxInFlight = options.maxInFlight ?? options.threads * CHUNKS_PER_THREAD
    this.#pastMsPerItem = pool.msPerItem(options.task, options.mode)
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Output[]> {
    this.#options.signal?.throwIfAborted()
    const { task } = this.#options
    const endWatch = watchLimits(
      this.#options,
      () => `The tasks ${task}`,
      (_, reason) => this.#fail(reason),
    )
    try {
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
      this.#source.close()
      // What has nothing left in the works need not pay for an error and its stack.
      if (!this.#isThrough) this.#fail(new AppError('cancelled', 'Nobody reads the rest'))
    }
  }

  get #isThrough() {
    return this.#isExhausted && this.#calls.size === 0
  }

  /** Everything in flight ends with this error, the first one that comes. */
  #fail(reason: unknown) {
    if (this.#failure) return
    this.#failure = { reason }
    this.#taking?.reject(reason)
    for (const { resolve } of this.#remainders.splice(0)) resolve(Promise.reject(reason))
    for (const call of this.#calls) this.#pool.stop(call, 'cancelled', reason)
  }

  #advance() {
    while (this.#calls.size < this.#maxInFlight && !this.#failure) {
      const remainder = this.#remainders.shift()
      if (remainder) this.#resume(remainder)
      else if (this.#mayTake()) this.#take()
      else return
    }
  }

  #take() {
    const items = this.#source.take(this.#size())
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
    const left = this.#source.total === undefined ? Number.POSITIVE_INFINITY : this.#source.total - this.#taken
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
      return this.#remainder(items.slice(served), first + served).then((others) => [...output, ...others])
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
    const newest = runMs / items
    this.#msPerItem ??= newest
    // Where items become heavier, the newest tell more than the average.
    this.#msPerItem = Math.max(newest, this.#msPerItem + AVERAGE_WEIGHT * (newest - this.#msPerItem))
    this.#options.onProgress(this.#done)
    this.#advance()
  }

  /** @param first the place of the first of them. */
  async #call(items: Input[], first: number): Promise<Result<Output>> {
    if (this.#failure) throw this.#failure.reason
    const { task, mode, priority, key, requestId, timeoutMs, nameOf } = this.#options
    const accepted = this.#isAccepted
    const options: CallOptions = { priority, key, requestId, timeoutMs: accepted ? undefined : timeoutMs }
    const { promise, resolve, reject } = Promise.withResolvers<Result<Output>>()
    const call = new Call({ task, mode, input: items, items: items.length, accepted }, options, resolve, reject)
    this.#calls.add(call)
    try {
      this.#pool.add(call)
      this.#isAccepted = true
      return await promise
    } catch (error) {
      // Where another chunk has failed, this is that one's error.
      if (!this.#failure && error instanceof TaskError && error.item !== undefined)
        throw new TaskError(task, error.cause, nameOf(first + error.item))
      throw error
    } finally {
      this.#calls.delete(call)
    }
  }
}
