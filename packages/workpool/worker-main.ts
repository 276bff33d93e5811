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

/** Only on Linux can Node address a single thread. */
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

/** The pool sends one call at a time. */
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

function inSequence(
  serve: (message: protocol.RunMessage) => Promise<void> | undefined,
): (message: protocol.RunMessage) => boolean {
  let busy: Promise<void> | undefined
  return (message) => {
    const running = busy ? busy.then(() => serve(message)) : serve(message)
    busy = running
    void running?.then(() => {
      if (busy === running) busy = undefined
    })
    return !busy
  }
}

function serve(message: protocol.RunMessage, connection: Connection): Promise<void> | undefined {
  const [id, slot] = message
  // The pool may have revoked the message: see CELL.
  if (Atomics.compareExchange(connection.cells, slot, id, 0) !== id) return undefined
  return new Execution(message, connection).run()
}

/** Runs a message's inputs one by one, for MAX_CHUNK_MS at most; tasks get it as their context. */
class Execution implements TaskContext {
  readonly #message: protocol.RunMessage
  readonly #connection: Connection
  readonly #begunAt = performance.now()
  readonly #outputs: unknown[] = []
  readonly #transfers: Transferable[] = []
  #served = 0
  #reportedAt = this.#begunAt

  constructor(message: protocol.RunMessage, connection: Connection) {
    this.#message = message
    this.#connection = connection
  }

  run(): Promise<void> | undefined {
    const [, , task, mode, input] = this.#message
    const inputs = mode === 'one' ? [input] : (input as unknown[])
    try {
      const { run, join } = findImplementation(task)
      while (this.#mayContinue(inputs.length)) {
        Atomics.store(this.#connection.cells, CELL.item, this.#served)
        this.throwIfCancelled()
        const output = run(inputs[this.#served], this)
        const joinOutputs = mode === 'joined' ? join : undefined
        if (isThenable(output)) return this.#resume(output, joinOutputs)
        this.#collect(output, joinOutputs)
      }
      this.#succeed(mode)
    } catch (error) {
      this.#fail(error)
    }
    return undefined
  }

  get cancelled() {
    return Atomics.load(this.#connection.cells, CELL.cancelled) === this.#message[0]
  }

  throwIfCancelled() {
    if (this.cancelled) throw new Error('The task was cancelled')
  }

  progress(fraction: number) {
    const [id, , , mode] = this.#message
    // That of one item says little about its chunk.
    if (mode !== 'one') return
    const time = performance.now()
    if (time < this.#reportedAt + PROGRESS_INTERVAL_MS) return
    this.#reportedAt = time
    this.#connection.post([id, fraction])
  }

  transfer<Value>(value: Value, buffers: readonly Transferable[]): Value {
    this.#transfers.push(...buffers)
    return value
  }

  #mayContinue(inputs: number): boolean {
    if (this.#served === 0) return true
    return this.#served < inputs && performance.now() < this.#begunAt + MAX_CHUNK_MS
  }

  async #resume(output: PromiseLike<unknown>, join: Implementation['join']): Promise<void> {
    try {
      this.#collect(await output, join)
    } catch (error) {
      return this.#fail(error)
    }
    await this.run()
  }

  #collect(output: unknown, join: Implementation['join']) {
    if (join && this.#served > 0) this.#outputs[0] = join(this.#outputs[0], output)
    else this.#outputs.push(output)
    this.#served++
  }

  #succeed(mode: protocol.Mode) {
    const output = mode === 'one' ? this.#outputs[0] : this.#outputs
    try {
      this.#post(false, output, this.#served, this.#transfers)
    } catch (error) {
      const item = mode === 'each' ? this.#outputs.findIndex(isUncloneable) : this.#served - 1
      this.#fail(error, Math.max(0, item))
    }
  }

  #fail(error: unknown, item = this.#served) {
    try {
      this.#post(true, error, item)
    } catch (cloneError) {
      this.#post(true, cloneError, item)
    }
  }

  #post(failed: boolean, value: unknown, items: number, transfer?: readonly Transferable[]) {
    const runMs = performance.now() - this.#begunAt
    const startedAt = performance.timeOrigin + this.#begunAt
    this.#connection.post([this.#message[0], startedAt, runMs, failed, value, items], transfer)
  }
}

function isUncloneable(value: unknown): boolean {
  try {
    structuredClone(value)
    return false
  } catch {
    return true
  }
}

const isThenable = (value: unknown): value is PromiseLike<unknown> =>
  typeof (value as PromiseLike<unknown> | null | undefined)?.then === 'function'
