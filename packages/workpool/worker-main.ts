import { AsyncLocalStorage } from 'node:async_hooks'
import { readlinkSync } from 'node:fs'
import { flushCompileCache } from 'node:module'
import { availableParallelism, constants, setPriority } from 'node:os'
import { basename } from 'node:path'
import { performance } from 'node:perf_hooks'
import { isMainThread, type Transferable, Worker, workerData } from 'node:worker_threads'
import { MAX_CHUNK_MS, PROGRESS_INTERVAL_MS, SPIN_MS } from './policy.ts'
import type * as protocol from './protocol.ts'
import { CELL, createCells, postMessage, receiveMessages } from './protocol.ts'
import { findImplementation, type Implementation, type TaskContext } from './task.ts'

/** On a single core, spinning would delay what it waits for. */
const spinMs = availableParallelism() > 1 ? SPIN_MS : 0

interface Connection {
  cells: protocol.Cells
  post(message: protocol.WorkerMessage, transfer?: readonly Transferable[]): void
  /** @param onMessage returns false while an asynchronous task runs. */
  listen(onMessage: (message: protocol.RunMessage) => boolean): void
}

const owner = new AsyncLocalStorage<protocol.Owner>()

/** Serves tasks in this thread or process: the last call of the entry file. */
export function serveTasks(): void {
  const connection = isMainThread
    ? connectProcess()
    : connectThread(workerData as protocol.ThreadData)
  lowerPriority()
  process.on('exit', () => {
    const exitOwner = owner.getStore()
    if (exitOwner) connection.post([exitOwner])
  })
  connection.listen(
    inSequence((message) =>
      owner.run({ id: message[0], task: message[2] }, serve, message, connection),
    ),
  )
  // A replacement finds the compiled code even after a crash.
  flushCompileCache()
  connection.post([])
}

/** Prefers the event loop. Only on Linux can Node address a single thread. */
function lowerPriority() {
  if (process.platform !== 'linux') return
  try {
    const threadId = Number(basename(readlinkSync('/proc/thread-self')))
    setPriority(threadId, constants.priority.PRIORITY_LOW)
  } catch {
    // Some sandboxes forbid it.
  }
}

function connectThread({ cells, port }: protocol.ThreadData): Connection {
  return {
    cells,
    post: (message, transfer) => postMessage(port, message, transfer),
    listen(onMessage) {
      let received = 0
      let isFree = true
      receiveMessages<protocol.RunMessage>(port, {
        onMessage(message) {
          received = (received + 1) | 0
          isFree = onMessage(message)
        },
        onUnreadable(error) {
          throw error
        },
        // Spin, then park: waking a thread costs more than a short task.
        awaitNext: () => isFree && spinUntil(() => Atomics.load(cells, CELL.sent) !== received),
      })
    },
  }
}

function spinUntil(check: () => boolean): boolean {
  for (const endAt = performance.now() + spinMs; !check(); Atomics.pause())
    if (performance.now() > endAt) return false
  return true
}

/** Ends the process once the service was killed, even in an endless task. */
const WATCH_PARENT = `
  const { workerData: parent } = require('node:worker_threads')
  setInterval(() => process.ppid === parent || process.kill(process.pid, 'SIGKILL'), 1_000)
`

/** The pool sends one call at a time, and a message to cancel it. */
function connectProcess(): Connection {
  if (!process.send) throw new Error('Tasks are served by worker threads and child processes only')
  const cells = createCells(1)
  process.on('disconnect', () => process.exit())
  new Worker(WATCH_PARENT, { eval: true, env: {}, workerData: process.ppid }).unref()
  return {
    cells,
    post: (message) => process.send?.(message),
    listen: (onMessage) =>
      process.on('message', (message: protocol.RunMessage | protocol.CancelMessage) => {
        if (message.length === 1) return Atomics.store(cells, CELL.cancelled, message[0])
        const [id, slot] = message
        cells[slot] = id
        onMessage(message)
      }),
  }
}

/** Serves messages one after the other. */
function inSequence(
  serve: (message: protocol.RunMessage) => Promise<void> | undefined,
): (message: protocol.RunMessage) => boolean {
  const waiting: protocol.RunMessage[] = []
  let isBusy = false
  const advance = () => {
    for (let next = waiting.shift(); next; next = waiting.shift()) {
      const running = serve(next)
      if (!running) continue
      isBusy = true
      void running.then(() => {
        isBusy = false
        advance()
      })
      return
    }
  }
  return (message) => {
    waiting.push(message)
    if (!isBusy) advance()
    return !isBusy
  }
}

function serve(message: protocol.RunMessage, connection: Connection): Promise<void> | undefined {
  const [id, slot, task, mode, input] = message
  const { cells } = connection
  // The pool may have revoked the message: see CELL.
  if (Atomics.compareExchange(cells, slot, id, 0) !== id) return undefined
  Atomics.store(cells, CELL.item, 0)
  const begunAt = performance.now()
  const context = new Context(message, connection)
  let chunk: Chunk | undefined
  const post = (failed: boolean, value: unknown, items: number, transfer?: Transferable[]) => {
    const runMs = performance.now() - begunAt
    const startedAt = performance.timeOrigin + begunAt
    connection.post([id, startedAt, runMs, failed, value, items], transfer)
  }
  const succeed = (output: unknown) => {
    try {
      post(false, output, chunk?.served ?? 1, context.transfers)
    } catch (error) {
      // The output cannot be cloned.
      if (mode === 'each') Atomics.store(cells, CELL.item, findUncloneable(output as unknown[]))
      fail(error)
    }
  }
  const fail = (error: unknown) => {
    const item = Atomics.load(cells, CELL.item)
    try {
      post(true, error, item)
    } catch (cloneError) {
      post(true, cloneError, item)
    }
  }
  try {
    const implementation = findImplementation(task)
    if (mode !== 'one') chunk = new Chunk(implementation, input as unknown[], mode === 'joined')
    const output = chunk ? chunk.run(context, cells) : implementation.run(input, context)
    if (isThenable(output)) return Promise.resolve(output).then(succeed, fail)
    succeed(output)
  } catch (error) {
    fail(error)
  }
  return undefined
}

/** Runs inputs one by one, for MAX_CHUNK_MS at most. */
class Chunk {
  readonly #run: Implementation['run']
  readonly #join: Implementation['join']
  readonly #inputs: unknown[]
  readonly #outputs: unknown[] = []
  readonly #endAt = performance.now() + MAX_CHUNK_MS
  served = 0

  constructor({ run, join }: Implementation, inputs: unknown[], isJoined: boolean) {
    this.#run = run
    this.#join = isJoined ? join : undefined
    this.#inputs = inputs
  }

  run(context: TaskContext, cells: protocol.Cells): unknown {
    while (this.#mayContinue) {
      Atomics.store(cells, CELL.item, this.served)
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

  get #mayContinue() {
    const isLeft = this.served < this.#inputs.length
    return isLeft && (this.served === 0 || performance.now() < this.#endAt)
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
  readonly #id: number
  readonly #wantsProgress: boolean
  readonly #connection: Connection
  #reportedAt = 0

  constructor([id, , , , , wantsProgress]: protocol.RunMessage, connection: Connection) {
    this.#id = id
    this.#wantsProgress = wantsProgress
    this.#connection = connection
  }

  get cancelled() {
    return Atomics.load(this.#connection.cells, CELL.cancelled) === this.#id
  }

  throwIfCancelled() {
    if (this.cancelled) throw new Error('The task was cancelled')
  }

  progress(fraction: number) {
    if (!this.#wantsProgress) return
    const time = performance.now()
    if (time < this.#reportedAt + PROGRESS_INTERVAL_MS) return
    this.#reportedAt = time
    this.#connection.post([this.#id, fraction])
  }

  transfer<Value>(value: Value, buffers: readonly Transferable[]): Value {
    this.transfers.push(...buffers)
    return value
  }
}

function findUncloneable(values: unknown[]): number {
  let index = 0
  try {
    for (; index < values.length; index++) structuredClone(values[index])
  } catch {
    return index
  }
  return index - 1
}

const isThenable = (value: unknown): value is PromiseLike<unknown> =>
  typeof (value as PromiseLike<unknown> | null | undefined)?.then === 'function'
