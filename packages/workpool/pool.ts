import { stat } from 'node:fs/promises'
import { Call, type CallOptions } from './call.ts'
import { PoolError, TaskError } from './errors.ts'
import { type Items, type MapOptions, ParallelMap, runChunk } from './map.ts'
import { IDLE_TIMEOUT_MS, MAX_QUEUED } from './policy.ts'
import type { Remote, RemoteAnswer, RemoteOptions, RemoteWork } from './remote.ts'
import { type ItemCounts, type Limits, Scheduler, type Timing } from './scheduler.ts'
import { listTasks, type Task, task } from './task.ts'
import { ProcessWorker, ThreadWorker, type WorkerState } from './worker.ts'

export type { ItemCounts, Timing, WorkerState }

const MAX_HEAP_MB = 1_024
/** Calls of other processes count as those of one caller. */
const REMOTE_KEY = 'remote'

export interface PoolOptions extends Partial<Limits> {
  /** The file of each worker: it loads the tasks, then calls `serveTasks()`. */
  entry: URL
  threads: number
  /** Threads kept while idle; all if absent. */
  minThreads?: number
  /**
   * Heap limit of each worker. A task at the limit fails alone, but one allocation of some 50 MB
   * beyond it ends the process: isolate such tasks.
   */
  maxHeapMb?: number
  /** Threads that `batch` work may use at once; by default it leaves one to requests. */
  batchThreads?: number
  /** Other processes, for calls that are `distributed`. */
  remote?: Remote | undefined
}

export interface RunOptions extends CallOptions {
  /** `process`, without shared memory, for native code that may crash. */
  isolation?: 'thread' | 'process'
}

type AnyArray = NodeJS.TypedArray<SharedArrayBuffer>
type ArrayName = AnyArray[typeof Symbol.toStringTag]
type SharedArray<Name> = Extract<AnyArray, { readonly [Symbol.toStringTag]: Name }>

interface ArrayClass<Name extends ArrayName> {
  new (buffer: SharedArrayBuffer): { readonly [Symbol.toStringTag]: Name }
  readonly BYTES_PER_ELEMENT: number
}

/** Worker threads and child processes that run tasks. */
export class Pool implements AsyncDisposable {
  readonly threads: number
  readonly batchThreads: number
  readonly #threads: Scheduler
  readonly #processes: Scheduler

  /** Starts all threads. @throws Error when one cannot load its tasks. */
  static async open(options: PoolOptions): Promise<Pool> {
    // Starts libuv's threads here: a worker's would inherit its low priority.
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
    const allButOne = Math.max(1, threads - 1)
    const { remote, batchThreads = allButOne, ...others } = options
    this.threads = threads
    this.batchThreads = batchThreads
    const defaults = { maxQueued: MAX_QUEUED, idleMs: IDLE_TIMEOUT_MS }
    const limits = { ...defaults, ...others }
    this.#threads = new Scheduler({
      ...limits,
      batchWorkers: batchThreads,
      remote,
      minWorkers: Math.min(minThreads, threads),
      maxWorkers: threads,
      start: (number, events) =>
        new ThreadWorker({ name: `compute-${number}`, entry, maxHeapMb }, events),
    })
    this.#processes = new Scheduler({
      ...limits,
      batchWorkers: allButOne,
      minWorkers: 0,
      maxWorkers: threads,
      start: (number, events) =>
        new ProcessWorker({ name: `process-${number}`, entry, maxHeapMb }, events),
    })
  }

  get queued() {
    return this.#threads.queued + this.#processes.queued
  }

  get running() {
    return this.#threads.running + this.#processes.running
  }

  workerStates(): WorkerState[] {
    return [...this.#threads.states(), ...this.#processes.states()]
  }

  /** For `workerStates`, once the workers have answered. */
  measureMemory(): void {
    this.#threads.measureMemory()
    this.#processes.measureMemory()
  }

  /** Of a map, known items only. */
  countItems(): ItemCounts {
    const counts: ItemCounts = new Map()
    this.#threads.countItems(counts)
    this.#processes.countItems(counts)
    return counts
  }

  /**
   * Rejects at once when the signal aborts or the time is up. A running task is asked to end and,
   * after `graceMs`, terminated.
   *
   * A `distributed` run that takes long goes to another process if no thread is idle here.
   *
   * @throws PoolError; TaskError; the signal's reason; DataCloneError for an uncloneable input.
   */
  run<Input, Output>(
    task: Task<Input, Output>,
    input: Input,
    options: RunOptions = {},
  ): Promise<Output> {
    const scheduler = options.isolation === 'process' ? this.#processes : this.#threads
    const work = { task: task.name, mode: 'one', input, items: 1 } as const
    if (options.distributed && options.transfer?.length) return Promise.reject(noTransfer(task))
    return new Promise((resolve, reject) => scheduler.add(new Call(work, options, resolve, reject)))
  }

  /**
   * Runs a task for each item on all threads, and on those of other processes if it is
   * `distributed`. Items are taken as needed. The map starts when its results are wanted; maps of
   * one caller run one after the other.
   *
   * The first error ends the rest: a TaskError that names the item, or an error of `run`.
   *
   * @throws RangeError when the concurrency is NaN.
   */
  map<Input, Output>(
    task: Task<Input, Output>,
    items: Items<Input>,
    options: MapOptions = {},
  ): ParallelMap<Input, Output> {
    return new ParallelMap({
      scheduler: this.#threads,
      task,
      items,
      threads: this.threads,
      options,
    })
  }

  /** Does what the pool of another process sends, as `batch` work. @throws the signal's reason. */
  async serve(work: RemoteWork, { signal, onProgress }: RemoteOptions): Promise<RemoteAnswer> {
    const { requestId, trace } = work
    const sender = { isRemote: true, priority: 'batch', key: REMOTE_KEY } as const
    const options = { ...sender, signal, requestId, trace }
    try {
      if (work.mode !== 'one') return await runChunk(this.#threads, work, options)
      const output = await this.run(task(work.task), work.input, { ...options, onProgress })
      return { outcome: 'done', output, items: 1, runMs: 0 }
    } catch (error) {
      if (error instanceof TaskError)
        return { outcome: 'failed', error: error.cause, item: error.item }
      if (error instanceof PoolError) return { outcome: 'lost' }
      throw error
    }
  }

  /** What its threads implement. */
  listTasks(): Promise<string[]> {
    return this.run(listTasks, null)
  }

  /** Zeros in shared memory. Reuse large arrays: each thread that saw them delays their end. */
  share<Name extends ArrayName>(type: ArrayClass<Name>, length: number): SharedArray<Name> {
    const buffer = new SharedArrayBuffer(length * type.BYTES_PER_ELEMENT)
    return new type(buffer) as unknown as SharedArray<Name>
  }

  /** Rejects all work with PoolClosedError. */
  async [Symbol.asyncDispose]() {
    await Promise.all([
      this.#threads[Symbol.asyncDispose](),
      this.#processes[Symbol.asyncDispose](),
    ])
  }
}

const noTransfer = ({ name }: { name: string }) =>
  new DOMException(
    `A distributed call of ${name} cannot move buffers: leave out \`transfer\` or \`distributed\``,
    'DataCloneError',
  )
