import { AsyncLocalStorage } from 'node:async_hooks'
import { flushCompileCache } from 'node:module'
import { availableParallelism } from 'node:os'
import { performance } from 'node:perf_hooks'
import { isMainThread, type Transferable, Worker, workerData } from 'node:worker_threads'
import { postMessage, receiveMessages } from './messages.ts'
import { lowerPriority } from './priority.ts'
import {
  CANCELLED,
  type CancelMessage,
  type Cells,
  ITEM,
  type Owner,
  type Packed,
  type PackedRun,
  type RunMessage,
  SENT,
  SLOTS,
  type ThreadData,
  unpackRun,
} from './protocol.ts'
import { findImplementation, type Implementation, type TaskContext } from './task.ts'

const PROGRESS_EVERY_MS = 100
/**
 * A chunk that takes several times what it was meant to ends after that long: other threads take
 * over what is left.
 */
const MAX_CHUNK_MS = 20

/**
 * How long a thread that has nothing left to do looks for its next message before it sleeps: about
 * what it takes to wake it. With a single core, what it waits for could not happen meanwhile.
 */
const LINGER_MS = availableParallelism() > 1 ? 0.05 : 0

/**
 * The message that the running code belongs to, across timers and promises: an error that nobody
 * catches, or an exit, may come from a task that has returned long ago.
 */
const owner = new AsyncLocalStorage<Owner>()

/** The executor's end of its connection to the event loop. */
interface Port {
  cells: Cells
  post(message: Packed, transfer: Transferable[]): void
  /** @param onMessage false while a task goes on that is asynchronous. */
  listen(onMessage: (message: RunMessage) => boolean): void
}

/**
 * Turns this thread or child process into one that serves tasks: the last thing its entry file
 * does, after loading them.
 */
export function serveTasks(): void {
  const port = isMainThread ? processPort() : threadPort(workerData as ThreadData)
  lowerPriority()
  const serve = inTurn((message: RunMessage) =>
    owner.run({ id: message.id, task: message.task }, serveMessage, message, port),
  )
  process.on('exit', () => {
    const ender = owner.getStore()
    if (ender) port.post([ender], [])
  })
  port.listen(serve)
  // For those that replace it, even if it does not live to its end.
  flushCompileCache()
  port.post([], [])
}

function threadPort({ cells, port }: ThreadData): Port {
  return {
    cells,
    post: (message, transfer) => postMessage(port, message, transfer),
    listen(onMessage) {
      let received = 0
      let isFree = true
      receiveMessages<PackedRun>(port, {
        onMessage(message) {
          received = (received + 1) | 0
          isFree = onMessage(unpackRun(message))
        },
        // Whose it was is known from what the event loop still waits for.
        onUnreadable(error) {
          throw error
        },
        awaitNext: () =>
          isFree && isAnyWithin(LINGER_MS, () => Atomics.load(cells, SENT) !== received),
      })
    },
  }
}

function isAnyWithin(ms: number, check: () => boolean): boolean {
  for (const endAt = performance.now() + ms; !check(); Atomics.pause())
    if (performance.now() > endAt) return false
  return true
}

/**
 * A task that computes without end does not hear that its service was killed. This thread looks
 * every second.
 */
const WATCH_PARENT = `
  const { workerData: parent } = require('node:worker_threads')
  setInterval(() => process.ppid === parent || process.kill(process.pid, 'SIGKILL'), 1_000)
`

/**
 * A child process shares no memory: it is sent one message at a time, and told in a message what is
 * cancelled.
 */
function processPort(): Port {
  if (!process.send) throw new Error('Tasks are served by worker threads and child processes only')
  const cells = new Int32Array(new SharedArrayBuffer((SLOTS + 1) * Int32Array.BYTES_PER_ELEMENT))
  process.on('disconnect', () => process.exit())
  new Worker(WATCH_PARENT, { eval: true, env: {}, workerData: process.ppid }).unref()
  return {
    cells,
    post: (message) => process.send?.(message),
    listen: (onMessage) =>
      process.on('message', (packed: PackedRun | CancelMessage) => {
        if ('cancel' in packed) return Atomics.store(cells, CANCELLED, packed.cancel)
        const message = unpackRun(packed)
        cells[message.slot] = message.id
        onMessage(message)
      }),
  }
}

/** One message after the other, also where a task is asynchronous; false while one is. */
function inTurn(
  serve: (message: RunMessage) => Promise<void> | undefined,
): (message: RunMessage) => boolean {
  const waiting: RunMessage[] = []
  let busy = false
  const advance = () => {
    for (let next = waiting.shift(); next; next = waiting.shift()) {
      const pending = serve(next)
      if (!pending) continue
      busy = true
      void pending.then(() => {
        busy = false
        advance()
      })
      return
    }
  }
  return (message) => {
    waiting.push(message)
    if (!busy) advance()
    return !busy
  }
}

/** Returns a promise only for a task that does: the others are through at once. */
function serveMessage(message: RunMessage, port: Port): Promise<void> | undefined {
  const { id, slot, task, mode, input } = message
  // Taken back: the event loop gave it to another thread, or nobody waits for it.
  if (Atomics.compareExchange(port.cells, slot, id, 0) !== id) return undefined
  Atomics.store(port.cells, ITEM, 0)
  const begunAt = performance.now()
  const context = new Context(message, port)
  let chunk: Chunk | undefined
  const post = (failed: boolean, value: unknown, items: number, transfer: Transferable[] = []) =>
    port.post(
      [id, performance.timeOrigin + begunAt, performance.now() - begunAt, failed, value, items],
      transfer,
    )
  const give = (output: unknown) => {
    try {
      post(false, output, chunk?.served ?? 1, context.transfers)
    } catch (error) {
      // It cannot be cloned: a function in it, say.
      const item = mode === 'each' ? (output as unknown[]).findIndex(isUnclonable) : -1
      if (item >= 0) Atomics.store(port.cells, ITEM, item)
      refuse(error)
    }
  }
  const refuse = (error: unknown) => {
    const item = Atomics.load(port.cells, ITEM)
    try {
      post(true, error, item)
    } catch (unclonable) {
      post(true, unclonable, item)
    }
  }
  try {
    const implementation = findImplementation(task)
    if (mode !== 'one') chunk = new Chunk(implementation, input as unknown[], mode === 'joined')
    const output = chunk ? chunk.run(context, port.cells) : implementation.run(input, context)
    if (isThenable(output)) return Promise.resolve(output).then(give, refuse)
    give(output)
  } catch (error) {
    refuse(error)
  }
  return undefined
}

/** The inputs of a chunk one by one; a promise from where the first of them gives one. */
class Chunk {
  readonly #run: Implementation['run']
  readonly #join: Implementation['join']
  readonly #inputs: unknown[]
  readonly #outputs: unknown[] = []
  readonly #endAt = performance.now() + MAX_CHUNK_MS
  /** How many of them have an output. */
  served = 0

  constructor({ run, join }: Implementation, inputs: unknown[], joined: boolean) {
    this.#run = run
    this.#join = joined ? join : undefined
    this.#inputs = inputs
  }

  run(context: TaskContext, cells: Cells): unknown {
    while (
      this.served < this.#inputs.length &&
      (this.served === 0 || performance.now() < this.#endAt)
    ) {
      Atomics.store(cells, ITEM, this.served)
      context.throwIfCancelled()
      const output = this.#run(this.#inputs[this.served], context)
      if (isThenable(output))
        return Promise.resolve(output).then((value) => {
          this.#collect(value)
          return this.run(context, cells)
        })
      this.#collect(output)
    }
    return this.#outputs
  }

  #collect(output: unknown) {
    this.served++
    if (this.#join && this.#outputs.length > 0)
      this.#outputs[0] = this.#join(this.#outputs[0], output)
    else this.#outputs.push(output)
  }
}

class Context implements TaskContext {
  readonly transfers: Transferable[] = []
  readonly #message: RunMessage
  readonly #port: Port
  #progressAt = 0

  constructor(message: RunMessage, port: Port) {
    this.#message = message
    this.#port = port
  }

  get cancelled() {
    return Atomics.load(this.#port.cells, CANCELLED) === this.#message.id
  }

  throwIfCancelled() {
    if (this.cancelled) throw new Error('The task was cancelled')
  }

  progress(fraction: number) {
    if (!this.#message.wantsProgress || performance.now() < this.#progressAt + PROGRESS_EVERY_MS)
      return
    this.#progressAt = performance.now()
    this.#port.post([this.#message.id, fraction], [])
  }

  transfer<Value>(value: Value, buffers: readonly Transferable[]): Value {
    this.transfers.push(...buffers)
    return value
  }
}

function isUnclonable(value: unknown): boolean {
  try {
    structuredClone(value)
    return false
  } catch {
    return true
  }
}

/** Whether `await` would wait for it: a promise of whatever library. */
const isThenable = (value: unknown): value is PromiseLike<unknown> =>
  typeof (value as PromiseLike<unknown> | null | undefined)?.then === 'function'
