import { stat } from 'node:fs/promises'
import { MAX_WAITING } from './admission.ts'
import { Call, type CallOptions } from './call.ts'
import { TaskProcess } from './child-process.ts'
import { type MapOptions, Mapping } from './mapping.ts'
import { Scheduler } from './scheduler.ts'
import type { Items } from './source.ts'
import type { Task } from './task.ts'
import { Thread } from './thread.ts'
import type { Timing } from './timing.ts'

export type { Timing }

const MAX_HEAP_MB = 1_024
const IDLE_MS = 60_000

export interface PoolOptions {
  /** The file that each thread runs: loads the tasks, then calls `serveTasks()`. */
  entry: URL
  /** How many threads there are at most. */
  threads: number
  /** How many of them stay when there is nothing to do; all if absent. */
  minThreads?: number
  /** Threads beyond `minThreads` end after so long without work. */
  idleMs?: number
  /**
   * Each thread's memory for objects and strings; typed arrays and Buffers do not count. A task
   * that fills it bit by bit fails alone. A single object that goes beyond it by more than some 50
   * MB (an array of millions, a large Map or object that grows) ends the whole process, which V8
   * does not let Node prevent: what may hold such ones needs a limit well above them, or
   * `isolation: 'process'`.
   */
  maxHeapMb?: number
  /**
   * How many calls and maps of each priority may wait: a bound on memory; their time is bounded in
   * `admission.ts`.
   */
  maxQueued?: number
  /**
   * When it aborts, nothing new is taken on. What was accepted is served: it may take `drainMs`,
   * until it is told to end.
   */
  stopping?: AbortSignal
  drainMs?: number
  onTiming?: (timing: Timing) => void
  /**
   * Told of every thread that ended by itself, and of the task whose code ended it, where that is
   * known.
   */
  onCrash?: (error: Error, thread: string, task?: string) => void
}

export interface RunOptions extends CallOptions {
  /**
   * `process`: in a child process, whatever happens to it, and without shared memory; for native
   * code that may crash.
   */
  isolation?: 'thread' | 'process'
}

/** What can be shared, by the name of its class. */
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

/** The process's worker threads. `main.ts` opens it. */
export class Pool implements AsyncDisposable {
  /** How many threads there are at most. */
  readonly threads: number
  readonly #threads: Scheduler
  readonly #processes: Scheduler

  /**
   * Starts all threads, so that no request pays for it. @throws Error when one cannot load its
   * tasks.
   */
  static async open(options: PoolOptions): Promise<Pool> {
    // Libuv starts its threads at its first use, with the priority of whoever needs them: it must
    // not be a thread of ours.
    await stat(process.execPath)
    const compute = new Pool(options)
    try {
      await compute.#threads.warmUp()
      return compute
    } catch (error) {
      await compute[Symbol.asyncDispose]()
      throw error
    }
  }

  private constructor({
    entry,
    threads,
    minThreads = threads,
    idleMs = IDLE_MS,
    maxHeapMb = MAX_HEAP_MB,
    ...rest
  }: PoolOptions) {
    this.threads = threads
    let started = 0
    const optionsFor = (kind: string) => ({ name: `${kind}-${++started}`, entry, maxHeapMb })
    const options = { ...rest, max: threads, idleMs, maxQueued: rest.maxQueued ?? MAX_WAITING }
    this.#threads = new Scheduler({
      ...options,
      min: Math.min(minThreads, threads),
      start: (events) => Thread.start(optionsFor('compute'), events),
    })
    this.#processes = new Scheduler({
      ...options,
      min: 0,
      start: (events) => TaskProcess.start(optionsFor('process'), events),
    })
  }

  /** Calls that wait for a thread. */
  get queued() {
    return this.#threads.queued + this.#processes.queued
  }

  /**
   * The threads that there are, and the task that each of them runs. Child processes are not among
   * them.
   */
  threadStates(): { name: string; task: string | null }[] {
    return this.#threads.states()
  }

  /** Threads that are busy. */
  get running() {
    return this.#threads.running + this.#processes.running
  }

  /**
   * Runs a task on a thread and resolves with its output. When the signal aborts or the time is up,
   * the promise rejects at once and the task is stopped: dropped if it still waits, else asked to
   * end and, 100 ms later, terminated.
   *
   * @throws AppError `overloaded` when it has waited too long for a thread: for half of its
   * `timeoutMs`, or 30 s without one; `deadline_exceeded`; `unavailable` while stopping; TaskError
   * when the task itself fails; the signal's reason; DataCloneError when the input cannot be sent
   * to a thread.
   */
  run<Input, Output>(
    task: Task<Input, Output>,
    input: Input,
    options: RunOptions = {},
  ): Promise<Output> {
    const pool = options.isolation === 'process' ? this.#processes : this.#threads
    const work = { task: task.name, mode: 'one', input, items: 1 } as const
    return new Promise((resolve, reject) => pool.add(new Call(work, options, resolve, reject)))
  }

  /**
   * Runs a task for each item, on all threads: tiny items travel in batches, and heavy ones one by
   * one to whichever thread is free. Items may also come from an iterable or an async iterable,
   * even an endless one: no more are taken than the threads can use. Nothing starts before the
   * results are wanted, and a map waits for its turn as a whole: the maps of one caller (`key`) run
   * one after the other.
   *
   *     const counts = await compute.map(countPrimes, ranges, { signal })
   *     for await (const tile of compute.map(drawTile, tiles, { signal })) socket.write(tile)
   *     const sum = await compute.map(countPrimes, ranges, { signal }).reduce(0)
   *
   * The first item that fails ends the rest: what it throws is a TaskError that names the item, or
   * else as for `run`.
   *
   * @throws RangeError when the concurrency is NaN.
   */
  map<Input, Output>(
    task: Task<Input, Output>,
    items: Items<Input>,
    options: MapOptions = {},
  ): Mapping<Input, Output> {
    return new Mapping(this.#threads, task, items, this.threads, options)
  }

  /**
   * Memory that every thread sees, once, whatever its size: send it with any input. It holds zeros.
   * It is free again only when the event loop and all threads that saw it have collected their ends
   * of it, which threads without garbage of their own put off: use large ones again instead of
   * making new ones.
   */
  share<Name extends keyof SharedArrays>(
    type: TypedArrayClass<Name>,
    length: number,
  ): SharedArrays[Name] {
    return new type(
      new SharedArrayBuffer(length * type.BYTES_PER_ELEMENT),
    ) as unknown as SharedArrays[Name]
  }

  async [Symbol.asyncDispose]() {
    await Promise.all([
      this.#threads[Symbol.asyncDispose](),
      this.#processes[Symbol.asyncDispose](),
    ])
  }
}
