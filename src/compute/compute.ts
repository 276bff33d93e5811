import { setTimeout as sleep } from 'node:timers/promises'
import { AppError } from '../errors.ts'
import type { Task } from '../names.ts'
import type { DoneMessage } from './protocol.ts'
import { TaskError } from './task-error.ts'
import { Thread } from './thread.ts'

const MAX_QUEUED_PER_THREAD = 50
/** What a cancelled task gets to end by itself before its thread is terminated. */
const CANCEL_GRACE_MS = 100
const RESTART_DELAY_MS = 100
const MAX_RESTART_DELAY_MS = 5_000
/** Weight of the newest run in the moving average of run times. */
const AVERAGE_WEIGHT = 0.1

export interface ComputeOptions {
  /** The file that each thread runs: loads the tasks, then calls `serveTasks()`. */
  entry: URL
  threads: number
  /** When it aborts, nothing new starts: queued tasks are refused, running ones go on. */
  stopping?: AbortSignal
  onTiming?: (timing: Timing) => void
  /** Told of every thread that ended by itself. */
  onCrash?: (error: Error, thread: string) => void
}

export interface RunOptions {
  signal?: AbortSignal
  /** For waiting and running together; the signal alone decides if absent. */
  timeoutMs?: number
}

export type Outcome = 'succeeded' | 'failed' | 'cancelled' | 'deadline_exceeded' | 'crashed'

/** What one task cost. A task that was refused, or that ended while it waited, has none. */
export interface Timing {
  task: string
  thread: string
  outcome: Outcome
  /** Milliseconds between `run()` and its hand-over to a thread. */
  queuedMs: number
  /** Milliseconds from there until its thread was free again. */
  runMs: number
}

interface Call {
  readonly id: number
  readonly task: string
  readonly input: unknown
  readonly queuedAt: number
  readonly resolve: (output: never) => void
  readonly reject: (reason: unknown) => void
  /** Stops listening for the call's end from outside. */
  readonly release: () => void
  startedAt: number
  outcome: Outcome | undefined
}

/** The process's worker threads and the bounded queue before them. `main.ts` opens it. */
export class Compute implements AsyncDisposable {
  readonly #options: ComputeOptions
  readonly #queue = new Set<Call>()
  readonly #idle: Thread[] = []
  readonly #running = new Map<Thread, Call>()
  readonly #closing = new AbortController()
  #started = 0
  #lastId = 0
  #averageRunMs = 0

  /** Starts all threads, so that no request pays for it. @throws Error when one cannot load its tasks. */
  static async open(options: ComputeOptions): Promise<Compute> {
    const compute = new Compute(options)
    try {
      await Promise.all(Array.from({ length: options.threads }, () => compute.#startThread()))
      return compute
    } catch (error) {
      await compute[Symbol.asyncDispose]()
      throw error
    }
  }

  private constructor(options: ComputeOptions) {
    this.#options = options
    options.stopping?.addEventListener('abort', () => this.#refuseQueued(), { once: true })
  }

  get queued() {
    return this.#queue.size
  }

  get running() {
    return this.#running.size
  }

  /**
   * Runs a task on a thread and resolves with its output. When the signal aborts or the time is up, the promise rejects
   * at once and the task is stopped: dropped if it still waits, else asked to end and, 100 ms later, terminated.
   *
   * @throws AppError `saturated` when the queue is full, `deadline_exceeded`, `unavailable` while stopping; TaskError
   * when the task itself fails; the signal's reason; DataCloneError when the input cannot be sent to a thread.
   */
  async run<Input, Output>(task: Task<Input, Output>, input: Input, options: RunOptions = {}): Promise<Output> {
    options.signal?.throwIfAborted()
    this.#assertOpen()
    const { promise, resolve, reject } = Promise.withResolvers<Output>()
    this.#enqueue(task.name, input, resolve, reject, options)
    this.#dispatch()
    return promise
  }

  async [Symbol.asyncDispose]() {
    this.#closing.abort()
    this.#refuseQueued()
    for (const call of this.#running.values()) this.#settle(call, 'cancelled', () => call.reject(stopping()))
    await Promise.all([...this.#idle, ...this.#running.keys()].map((thread) => thread.terminate()))
  }

  #assertOpen() {
    if (this.#closing.signal.aborted || this.#options.stopping?.aborted) throw stopping()
    if (this.#queue.size >= this.#options.threads * MAX_QUEUED_PER_THREAD)
      throw new AppError('saturated', 'Too much work is waiting for a thread: try again later', {
        retryAfter: this.#waitSeconds(),
      })
  }

  #waitSeconds() {
    return Math.max(1, Math.ceil((this.#queue.size * this.#averageRunMs) / this.#options.threads / 1_000))
  }

  #enqueue(task: string, input: unknown, resolve: Call['resolve'], reject: Call['reject'], { signal, timeoutMs }: RunOptions) {
    const onAbort = () => this.#stop(call, 'cancelled', signal?.reason)
    const onTimeout = () => this.#stop(call, 'deadline_exceeded', tooLate(task, timeoutMs))
    const timer = timeoutMs === undefined ? undefined : setTimeout(onTimeout, timeoutMs)
    const release = () => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
    }
    // An Int32, because that is what a thread compares it with.
    this.#lastId = (this.#lastId + 1) | 0
    const call: Call = {
      id: this.#lastId,
      task,
      input,
      queuedAt: performance.now(),
      resolve,
      reject,
      release,
      startedAt: 0,
      outcome: undefined,
    }
    signal?.addEventListener('abort', onAbort)
    this.#queue.add(call)
  }

  #dispatch() {
    for (const call of this.#queue) {
      const thread = this.#idle.pop()
      if (!thread) return
      this.#queue.delete(call)
      this.#hand(call, thread)
    }
  }

  #hand(call: Call, thread: Thread) {
    call.startedAt = performance.now()
    try {
      thread.run({ id: call.id, task: call.task, input: call.input })
      this.#running.set(thread, call)
    } catch (error) {
      this.#idle.push(thread)
      this.#settle(call, 'failed', () => call.reject(error))
    }
  }

  /** The caller gives up, by its signal or its time. */
  #stop(call: Call, outcome: Outcome, reason: unknown) {
    this.#settle(call, outcome, () => call.reject(reason))
    if (this.#queue.delete(call)) return
    const thread = [...this.#running].find(([, running]) => running === call)?.[0]
    if (!thread) return
    thread.cancel(call.id)
    setTimeout(() => this.#running.get(thread) === call && thread.terminate(), CANCEL_GRACE_MS)
  }

  #settle(call: Call, outcome: Outcome, settle: () => void) {
    if (call.outcome) return
    call.outcome = outcome
    call.release()
    settle()
  }

  #done(thread: Thread, message: DoneMessage) {
    const call = this.#running.get(thread)
    if (call?.id !== message.id) return
    if (message.ok) this.#settle(call, 'succeeded', () => call.resolve(message.output as never))
    else this.#settle(call, 'failed', () => call.reject(new TaskError(call.task, message.error)))
    this.#free(thread, call)
    this.#idle.push(thread)
    this.#dispatch()
  }

  #free(thread: Thread, call: Call) {
    this.#running.delete(thread)
    const runMs = performance.now() - call.startedAt
    this.#averageRunMs += AVERAGE_WEIGHT * (runMs - this.#averageRunMs)
    const { task, outcome = 'crashed', startedAt, queuedAt } = call
    this.#options.onTiming?.({ task, thread: thread.name, outcome, queuedMs: startedAt - queuedAt, runMs })
  }

  #exited(thread: Thread, error: Error) {
    if (this.#closing.signal.aborted) return
    const call = this.#running.get(thread)
    if (call) {
      this.#settle(call, 'crashed', () => call.reject(new TaskError(call.task, error)))
      this.#free(thread, call)
    } else {
      this.#idle.splice(this.#idle.indexOf(thread), 1)
    }
    if (call?.outcome !== 'cancelled' && call?.outcome !== 'deadline_exceeded') this.#options.onCrash?.(error, thread.name)
    void this.#replaceThread()
  }

  async #startThread() {
    const name = `compute-${++this.#started}`
    const thread: Thread = await Thread.start(this.#options.entry, name, {
      done: (message) => this.#done(thread, message),
      exit: (error) => this.#exited(thread, error),
    })
    if (this.#closing.signal.aborted) return thread.terminate()
    this.#idle.push(thread)
    this.#dispatch()
  }

  /** Tries until it succeeds: a moment without memory must not cost a thread for good. */
  async #replaceThread() {
    for (let delayMs = RESTART_DELAY_MS; !this.#closing.signal.aborted; delayMs = Math.min(delayMs * 2, MAX_RESTART_DELAY_MS)) {
      try {
        return await this.#startThread()
      } catch (error) {
        this.#options.onCrash?.(error as Error, 'a starting thread')
        await sleep(delayMs, undefined, { signal: this.#closing.signal }).catch(() => {})
      }
    }
  }

  #refuseQueued() {
    for (const call of this.#queue) {
      this.#queue.delete(call)
      this.#settle(call, 'cancelled', () => call.reject(stopping()))
    }
  }
}

const stopping = () => new AppError('unavailable', 'The service is stopping', { retryAfter: 1 })

const tooLate = (task: string, timeoutMs = 0) =>
  new AppError('deadline_exceeded', `The task ${task} took longer than ${timeoutMs} ms`)
