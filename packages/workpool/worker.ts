import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { enableCompileCache, getCompileCacheDir } from 'node:module'
import { dirname } from 'node:path'
import { performance } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { Serializer } from 'node:v8'
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads'
import type { Call } from './call.ts'
import { MAX_IN_FLIGHT, OVERDUE_MS, START_TIMEOUT_MS } from './policy.ts'
import type * as protocol from './protocol.ts'
import { CELL, createCells, postMessage, receiveMessages } from './protocol.ts'

/**
 * For node's command line: without them some loops cannot be terminated
 * (docs/decisions/011-threads-that-end.md).
 */
export const REQUIRED_NODE_FLAGS = ['--no-turboshaft-loop-unrolling'] as const

/** With more, a thread at its memory limit may end the process (the same decision). */
const MAX_YOUNG_GENERATION_MB = 36

export interface WorkerOptions {
  name: string
  entry: URL
  maxHeapMb: number
}

export interface WorkerEvents {
  done: (worker: PoolWorker, message: protocol.DoneMessage) => void
  progress: (worker: PoolWorker, message: protocol.ProgressMessage) => void
  exited: (worker: PoolWorker, error: Error) => void
}

export interface WorkerState {
  name: string
  kind: 'thread' | 'process'
  busyMs: number
  /** Used heap of a thread, resident memory of a process. */
  memoryBytes: number | undefined
  running: RunningTask | undefined
}

interface RunningTask {
  task: string
  /** Milliseconds since the epoch. */
  startedAt: number
  items: number
  progress: number | undefined
  requestId: string | undefined
}

/** A thread or child process, which runs its first call. */
export abstract class PoolWorker {
  readonly name: string
  readonly kind: 'thread' | 'process'
  readonly calls: Call[] = []
  expectedMs = 0
  /** When it began its first call, or became idle. */
  since = performance.now()
  /** Without its current call. */
  busyMs = 0
  /** `cancelling`: gets no call until the cancelled one has ended. */
  state: 'starting' | 'serving' | 'cancelling' | 'terminating' = 'starting'
  exitOwner: protocol.Owner | undefined = undefined
  abstract readonly capacity: number
  /** The index of the chunk's current input. */
  abstract readonly item: number
  readonly #events: WorkerEvents
  #memoryBytes: number | undefined
  #isMeasuring = false
  protected readonly started = Promise.withResolvers<void>()

  constructor(name: string, kind: 'thread' | 'process', events: WorkerEvents) {
    this.name = name
    this.kind = kind
    this.#events = events
  }

  abstract send(call: Call): void
  /** Returns false when the worker has begun the call. */
  abstract revoke(call: Call): boolean
  abstract cancel(call: Call): void
  abstract terminate(): Promise<void>
  protected abstract readMemory(): Promise<number | undefined>

  describe(): WorkerState {
    const { name, kind, calls, since } = this
    const [call] = calls
    return {
      name,
      kind,
      busyMs: this.busyMs + (call ? performance.now() - since : 0),
      memoryBytes: this.#memoryBytes,
      running: call && {
        task: call.task,
        startedAt: performance.timeOrigin + since,
        items: call.items,
        progress: call.progress,
        requestId: call.options.requestId,
      },
    }
  }

  async measureMemory(): Promise<void> {
    if (this.#isMeasuring) return
    this.#isMeasuring = true
    this.#memoryBytes = await this.readMemory().catch(() => undefined)
    this.#isMeasuring = false
  }

  get isIdle() {
    return this.calls.length === 0 && this.state !== 'terminating'
  }

  /** Batches: waking a worker costs more than a call. */
  get hasPlenty() {
    return this.calls.length > this.capacity / 2
  }

  isOverdue(time: number): boolean {
    return this.since < time - OVERDUE_MS
  }

  assign(call: Call): void {
    if (this.calls.push(call) === 1) this.since = performance.now()
    this.expectedMs += call.estimateMs ?? 0
  }

  unassign(call: Call): void {
    this.expectedMs = Math.max(0, this.expectedMs - (call.estimateMs ?? 0))
    if (this.calls[0] === call) {
      this.calls.shift()
      this.since = performance.now()
    } else this.calls.splice(this.calls.indexOf(call), 1)
  }

  /** @throws Error when it exits first, or is late. */
  async untilReady(): Promise<void> {
    const timer = setTimeout(() => {
      void this.terminate()
      const late = `The ${this.kind} was not ready within ${START_TIMEOUT_MS} ms`
      this.started.reject(new Error(late))
    }, START_TIMEOUT_MS)
    await this.started.promise.finally(() => clearTimeout(timer))
    this.state = 'serving'
  }

  protected received(message: protocol.WorkerMessage): void {
    if (message.length === 6) this.#events.done(this, message)
    else if (message.length === 2) this.#events.progress(this, message)
    else if (message.length === 1) this.exitOwner = message[0]
    else this.started.resolve()
  }

  /** @param error why it exited, if known. */
  protected exited(code: number | null, killedBy?: string | null, error?: Error): void {
    const how = killedBy ? `was killed by ${killedBy}` : `exited with code ${code}`
    const when = this.state === 'starting' ? ' before it was ready' : ''
    const reason = error ?? new Error(`The ${this.kind} ${how}${when}`)
    this.started.reject(reason)
    this.#events.exited(this, reason)
  }
}

export class ThreadWorker extends PoolWorker {
  readonly capacity = MAX_IN_FLIGHT
  readonly #thread: Worker
  readonly #port: MessagePort
  readonly #cells = createCells(MAX_IN_FLIGHT)
  /** Taken last; slots before it are mostly taken. */
  #slot: number = CELL.slots

  constructor({ name, entry, maxHeapMb }: WorkerOptions, events: WorkerEvents) {
    super(name, 'thread', events)
    const { port1, port2 } = new MessageChannel()
    this.#port = port1
    this.#thread = new Worker(entry, {
      name,
      workerData: { cells: this.#cells, port: port2 } satisfies protocol.ThreadData,
      transferList: [port2],
      env: createEnvironment(),
      resourceLimits: {
        maxOldGenerationSizeMb: maxHeapMb,
        maxYoungGenerationSizeMb: MAX_YOUNG_GENERATION_MB,
      },
    })
    let failure: Error | undefined
    this.#thread.on('error', (error: Error) => {
      failure = error
    })
    const receiveRest = receiveMessages<protocol.WorkerMessage>(port1, {
      onMessage: (message) => this.received(message),
      onUnreadable: (error) => {
        failure = error
        void this.terminate()
      },
    })
    this.#thread.on('exit', (code) => {
      receiveRest()
      this.exited(code, null, failure)
    })
  }

  get item() {
    return Atomics.load(this.#cells, CELL.item)
  }

  send(call: Call): void {
    // A slot is free: at most MAX_IN_FLIGHT messages are in flight.
    const next = this.#cells.indexOf(0, this.#slot)
    this.#slot = next === -1 ? this.#cells.indexOf(0, CELL.slots) : next
    call.slot = this.#slot
    Atomics.store(this.#cells, call.slot, call.id)
    try {
      postMessage(this.#port, toMessage(call), call.options.transfer)
      Atomics.add(this.#cells, CELL.sent, 1)
    } catch (error) {
      Atomics.store(this.#cells, call.slot, 0)
      throw error
    }
  }

  revoke({ slot, id }: Call): boolean {
    return Atomics.compareExchange(this.#cells, slot, id, 0) === id
  }

  cancel({ id }: Call): void {
    Atomics.store(this.#cells, CELL.cancelled, id)
  }

  async terminate(): Promise<void> {
    await this.#thread.terminate()
  }

  /** Interrupts a running task for microseconds. */
  protected async readMemory(): Promise<number> {
    return (await this.#thread.getHeapStatistics()).used_heap_size
  }
}

/** For native code that may crash. */
export class ProcessWorker extends PoolWorker {
  readonly capacity = 1
  readonly item = 0
  readonly #child: ChildProcess

  constructor({ name, entry, maxHeapMb }: WorkerOptions, events: WorkerEvents) {
    super(name, 'process', events)
    this.#child = fork(fileURLToPath(entry), {
      env: createEnvironment(),
      execArgv: [...REQUIRED_NODE_FLAGS, `--max-old-space-size=${maxHeapMb}`],
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    })
    // Sending to a dying child fails, too: `exit` follows.
    this.#child.on('error', this.started.reject)
    this.#child.on('message', (message: protocol.WorkerMessage) => this.received(message))
    this.#child.on('exit', (code, killedBy) => this.exited(code, killedBy))
  }

  send(call: Call): void {
    if (call.options.transfer?.length)
      throw new DOMException('Buffers cannot be transferred to another process', 'DataCloneError')
    assertCloneable(call.input)
    call.slot = CELL.slots
    this.#child.send(toMessage(call))
  }

  /** The child begins whatever it is sent. */
  revoke(): boolean {
    return false
  }

  cancel({ id }: Call): void {
    this.#child.send([id] satisfies protocol.CancelMessage)
  }

  async terminate(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const exited = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await exited
  }

  protected async readMemory(): Promise<number | undefined> {
    if (process.platform !== 'linux') return undefined
    const status = await readFile(`/proc/${this.#child.pid}/status`, 'utf8')
    const [, kibibytes] = status.match(/^VmRSS:\s+(\d+) kB$/m) ?? []
    return kibibytes === undefined ? undefined : Number(kibibytes) * 1_024
  }
}

const toMessage = ({ id, slot, task, mode, input }: Call): protocol.RunMessage => [
  id,
  slot,
  task,
  mode,
  input,
]

/** @throws DataCloneError, also for shared memory, which would be copied. */
function assertCloneable(input: unknown) {
  try {
    new Serializer().writeValue(input)
  } catch (error) {
    throw new DOMException((error as Error).message, 'DataCloneError')
  }
}

/** Only Node's compile cache: the service's environment holds secrets. */
export function createEnvironment(): NodeJS.ProcessEnv {
  enableCompileCache()
  const folder = getCompileCacheDir()
  // Node adds a folder per version, and has none if it cannot write.
  return folder ? { NODE_COMPILE_CACHE: dirname(folder) } : {}
}
