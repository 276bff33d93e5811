import { stat } from 'node:fs/promises'
import { Call, type CallOptions } from './call.ts'
import { type Items, type MapOptions, ParallelMap } from './map.ts'
import { IDLE_TIMEOUT_MS, MAX_QUEUED } from './policy.ts'
import { Scheduler, type Timing } from './scheduler.ts'
import type { Task } from './task.ts'
import { ProcessWorker, REQUIRED_NODE_FLAGS, ThreadWorker } from './worker.ts'

export type { Timing }

const MAX_HEAP_MB = 1_024

export interface PoolOptions {
  /** The file that each worker runs: it loads the tasks, then calls `serveTasks()`. */
  entry: URL
  /** The maximum number of threads. */
  threads: number
  /** How many threads stay when there is nothing to do; all if absent. */
  minThreads?: number
  /** Threads beyond `minThreads` end after this time without work. */
  idleMs?: number
  /**
   * Each worker's memory for objects and strings; typed arrays and Buffers do not count. A task
   * that fills it fails alone. A single allocation that exceeds it by some 50 MB (a huge array, a
   * Map that grows) ends the process, because V8 gives Node no chance: use `isolation: 'process'`
   * where that may happen.
   */
  maxHeapMb?: number
  /** How many calls and maps of each priority may wait: a bound on memory, not on time. */
  maxQueued?: number
  /** When it aborts, new work is refused; accepted work has nine tenths of `drainMs` to end. */
  stopping?: AbortSignal
  drainMs?: number
  onTiming?: (timing: Timing) => void
  /** Receives each worker that ended by itself, and the task whose code ended it, if known. */
  onCrash?: (error: Error, worker: string, task?: string) => void
  /** Receives what is wrong with how the process was started. */
  onWarning?: (message: string) => void
}

export interface RunOptions extends CallOptions {
  /**
   * `process` runs the task in a child process, without shared memory: for native code that may
   * crash, or memory that cannot be bounded. The default is `thread`.
   */
  isolation?: 'thread' | 'process'
}

/** The arrays that can be shared, by the names of their classes. */
interface SharedArrays {
  Float64Array: Float64Array<SharedArrayBuffer>
  Float32Array: Float32Array<SharedArrayBuffer>
  Int32Array: Int32Array<SharedArrayBuffer>
  Uint32Array: Uint32Array<SharedArrayBuffer>
  Int16Array: Int16Array<SharedArrayBuffer>
  Uint16Array: Uint16Array<SharedArrayBuffer>
  Int8Array: Int8Array<SharedArrayBuffer>
  Uint8Array: Uint8Array<SharedArrayBuffer>
  Uint8ClampedArray: Uint8ClampedArray<SharedArrayBuffer>
  BigInt64Array: BigInt64Array<SharedArrayBuffer>
  BigUint64Array: BigUint64Array<SharedArrayBuffer>
}

interface TypedArrayClass<Name extends keyof SharedArrays> {
  new (buffer: SharedArrayBuffer): { readonly [Symbol.toStringTag]: Name }
  readonly BYTES_PER_ELEMENT: number
}

/** Runs tasks on worker threads, or in child processes. README.md says how it schedules them. */
export class Pool implements AsyncDisposable {
  /** The maximum number of threads. */
  readonly threads: number
  readonly #threads: Scheduler
  readonly #processes: Scheduler

  /** Starts all threads. @throws Error when one cannot load its tasks. */
  static async open(options: PoolOptions): Promise<Pool> {
    for (const flag of REQUIRED_NODE_FLAGS)
      if (!process.execArgv.includes(flag))
        options.onWarning?.(`Start node with ${flag}: some loops cannot be terminated without it`)
    // Libuv's own threads inherit the priority of the thread that first needs them: it must not be
    // a worker.
    await stat(process.execPath)
    const pool = new Pool(options)
    try {
      await pool.#threads.startAll()
      return pool
    } catch (error) {
      await pool[Symbol.asyncDispose]()
      throw error
    }
  }

  private constructor(options: PoolOptions) {
    const { entry, threads, minThreads = threads, maxHeapMb = MAX_HEAP_MB } = options
    this.threads = threads
    let started = 0
    const nameWorker = (kind: string) => ({ name: `${kind}-${++started}`, entry, maxHeapMb })
    const shared = { maxQueued: MAX_QUEUED, idleMs: IDLE_TIMEOUT_MS, ...options, max: threads }
    this.#threads = new Scheduler({
      ...shared,
      min: Math.min(minThreads, threads),
      start: (events) => ThreadWorker.start(nameWorker('compute'), events),
    })
    this.#processes = new Scheduler({
      ...shared,
      min: 0,
      start: (events) => ProcessWorker.start(nameWorker('process'), events),
    })
  }

  /** How many calls and maps wait. */
  get queued() {
    return this.#threads.queued + this.#processes.queued
  }

  /** How many workers are busy. */
  get running() {
    return this.#threads.running + this.#processes.running
  }

  /** All threads, each with the task that it runs. */
  threadStates(): { name: string; task: string | null }[] {
    return this.#threads.states()
  }

  /**
   * Runs a task and resolves with its output. When the signal aborts or the time is up, the promise
   * rejects at once. The task is dropped if it still waits; otherwise it is asked to end and, after
   * `graceMs`, terminated together with its worker.
   *
   * @throws OverloadedError when it waited too long for a worker; DeadlineError; PoolClosedError;
   * TaskError when the task fails; the signal's reason; DataCloneError when the input cannot be
   * sent.
   */
  run<Input, Output>(
    task: Task<Input, Output>,
    input: Input,
    options: RunOptions = {},
  ): Promise<Output> {
    const scheduler = options.isolation === 'process' ? this.#processes : this.#threads
    const work = { task: task.name, mode: 'one', input, items: 1 } as const
    return new Promise((resolve, reject) => scheduler.add(new Call(work, options, resolve, reject)))
  }

  /**
   * Runs a task for each item on all threads. Tiny items are sent in batches, heavy ones one by one
   * to whichever thread is free. Items may come from an iterable or an async iterable, even an
   * endless one: no more are taken than the threads can use. Nothing starts before the results are
   * wanted, and the maps of one caller run one after the other.
   *
   *     const counts = await pool.map(countPrimes, ranges, { signal })
   *     for await (const tile of pool.map(drawTile, tiles, { signal })) socket.write(tile)
   *     const sum = await pool.map(countPrimes, ranges, { signal }).reduce(0)
   *
   * The first error ends the rest: a TaskError that names the item, or an error as of `run`.
   *
   * @throws RangeError when the concurrency is NaN.
   */
  map<Input, Output>(
    task: Task<Input, Output>,
    items: Items<Input>,
    options: MapOptions = {},
  ): ParallelMap<Input, Output> {
    return new ParallelMap(this.#threads, task, items, this.threads, options)
  }

  /**
   * An array of zeros in memory that all threads share: send it with any input. The memory is free
   * again only when the event loop and each thread that saw it have collected garbage, so reuse
   * large arrays.
   */
  share<Name extends keyof SharedArrays>(
    type: TypedArrayClass<Name>,
    length: number,
  ): SharedArrays[Name] {
    const buffer = new SharedArrayBuffer(length * type.BYTES_PER_ELEMENT)
    return new type(buffer) as unknown as SharedArrays[Name]
  }

  /** Ends all workers and rejects what they run and what waits with PoolClosedError. */
  async [Symbol.asyncDispose]() {
    await Promise.all([
      this.#threads[Symbol.asyncDispose](),
      this.#processes[Symbol.asyncDispose](),
    ])
  }
}
