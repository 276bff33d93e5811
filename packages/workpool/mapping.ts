import type { CallOptions } from './call.ts'
import { Chunks } from './chunks.ts'
import type { Scheduler } from './scheduler.ts'
import { type Items, sourceOf } from './source.ts'
import type { Task, TaskOptions } from './task.ts'

/**
 * Into how many pieces the work is cut, for each thread, where there are fewer items than that and
 * they can be cut.
 */
const PIECES_PER_THREAD = 128
/** How many chunks, for each thread, a stream is ahead of its reader. */
const STREAM_AHEAD = 4

export interface MapOptions
  extends Pick<CallOptions, 'signal' | 'timeoutMs' | 'priority' | 'key' | 'requestId'> {
  /** On how many threads at once, at least one; all of them if absent. */
  concurrency?: number
  /** Told after each chunk how many items are done, and of how many where that is known. */
  onProgress?: (progress: { done: number; total: number | undefined }) => void
}

/**
 * What `compute.map()` gives: work that starts once somebody wants its results. `await` it for all
 * of them in order, read them with `for await` as they come, or `reduce()` them to one.
 */
export class Mapping<Input, Output> implements PromiseLike<Output[]>, AsyncIterable<Output> {
  readonly #pool: Scheduler
  readonly #task: Task<Input, Output>
  readonly #items: Items<Input>
  readonly #threads: number
  readonly #options: MapOptions
  #all: Promise<Output[]> | undefined

  constructor(
    pool: Scheduler,
    task: Task<Input, Output>,
    items: Items<Input>,
    threads: number,
    options: MapOptions,
  ) {
    this.#pool = pool
    this.#task = task
    this.#items = items
    const { concurrency = threads } = options
    // Nothing would ever start, and a map without results looks like one without items.
    if (Number.isNaN(concurrency))
      throw new RangeError('The concurrency of a map is a number of threads, not NaN')
    this.#threads = Math.max(1, Math.floor(Math.min(threads, concurrency)))
    this.#options = options
  }

  /** All results, in order. */
  // biome-ignore lint/suspicious/noThenProperty: to be awaited is what it is for
  then<Result = Output[], Failure = never>(
    onFulfilled?: ((outputs: Output[]) => Result | PromiseLike<Result>) | null,
    onRejected?: ((reason: unknown) => Failure | PromiseLike<Failure>) | null,
  ): Promise<Result | Failure> {
    this.#all ??= this.#collect()
    return this.#all.then(onFulfilled, onRejected)
  }

  /**
   * The results in order, as they come; the threads are never far ahead. Leaving the loop ends what
   * they do.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<Output> {
    for await (const outputs of this.#outputs(this.#threads * STREAM_AHEAD)) yield* outputs
  }

  /**
   * All results in one, by the task's `join`: on the threads within each chunk, and here from chunk
   * to chunk.
   *
   * @param initial is joined before the first, and is the result where there are no items.
   * @throws Error when the task has no `join`.
   */
  async reduce(initial: Output): Promise<Output> {
    const join = this.#join
    if (!join)
      throw new Error(
        `The outputs of ${this.#task.name} cannot be reduced: its contract has no join`,
      )
    let result = initial
    for await (const outputs of this.#chunks('joined', Number.POSITIVE_INFINITY, this.#cut()))
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
    const cut = this.#cut()
    const chunks = this.#chunks('each', maxAhead, cut)
    return cut && this.#join ? joinPieces(chunks, cut, this.#join) : chunks
  }

  /**
   * What cuts the items into pieces, when it is first asked, where they can be cut and there are
   * too few of them to keep all threads busy to the end.
   */
  #cut(): (() => Pieces<Input>) | undefined {
    const split = this.#task.split as TaskOptions<Input, Output>['split']
    const items = this.#items
    if (!split || !Array.isArray(items)) return undefined
    const parts = Math.ceil((this.#threads * PIECES_PER_THREAD) / items.length)
    if (parts <= 1) return undefined
    let all: Pieces<Input> | undefined
    return () => {
      all ??= items.map((item: Input) => {
        const pieces = split(item, parts)
        return pieces.length > 0 ? pieces : [item]
      })
      return all
    }
  }

  #chunks(
    mode: 'each' | 'joined',
    maxAhead: number,
    cut: (() => Pieces<Input>) | undefined,
  ): Chunks<Input, Output> {
    const { onProgress, concurrency, ...options } = this.#options
    const maxInFlight = concurrency === undefined ? undefined : this.#threads
    const items = this.#items
    const total = Array.isArray(items) ? items.length : undefined
    return new Chunks(this.#pool, () => sourceOf(cut?.().flat() ?? items), {
      ...options,
      task: this.#task.name,
      mode,
      threads: this.#threads,
      isEven: cut !== undefined,
      maxInFlight,
      maxAhead,
      nameOf: (place) => (cut ? itemAt(place, cut()) : place),
      onProgress: (done) => onProgress?.({ done: cut ? itemAt(done, cut()) : done, total }),
    })
  }
}

/** Of each item. */
type Pieces<Input> = readonly (readonly Input[])[]

/** The item whose piece has this place; behind the last piece, the number of items. */
function itemAt(place: number, pieces: readonly (readonly unknown[])[]): number {
  let end = 0
  for (const [item, its] of pieces.entries()) {
    end += its.length
    if (place < end) return item
  }
  return pieces.length
}

/** Puts together the outputs of each item's pieces, which may lie in several chunks. */
async function* joinPieces<Input, Output>(
  chunks: AsyncIterable<Output[]>,
  cut: () => Pieces<Input>,
  join: (left: Output, right: Output) => Output,
): AsyncGenerator<Output[]> {
  let item = 0
  let joined: Output[] = []
  let count = 0
  for await (const outputs of chunks) {
    const whole: Output[] = []
    for (const output of outputs) {
      joined = [count === 0 ? output : join(joined[0] as Output, output)]
      if (++count < (cut()[item]?.length ?? 0)) continue
      whole.push(...joined)
      item++
      count = 0
    }
    if (whole.length > 0) yield whole
  }
}
