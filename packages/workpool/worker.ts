import { type ChildProcess, fork } from 'node:child_process'
import { type EventEmitter, once } from 'node:events'
import { enableCompileCache, getCompileCacheDir } from 'node:module'
import { dirname } from 'node:path'
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Serializer } from 'node:v8'
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads'
import type { Call } from './call.ts'
import { MAX_IN_FLIGHT, OVERDUE_MS, START_TIMEOUT_MS } from './policy.ts'
import {
  CANCELLED,
  type CancelMessage,
  createCells,
  type DoneMessage,
  ITEM,
  type Owner,
  postMessage,
  type RunMessage,
  receiveMessages,
  SENT,
  SLOTS,
  type ThreadData,
  type WorkerMessage,
} from './protocol.ts'

/**
 * V8 flags that have to be on node's command line: without them some loops of a task cannot be
 * terminated (docs/decisions/011-threads-that-end.md). Threads have the flags of their process.
 */
export const REQUIRED_NODE_FLAGS = ['--no-turboshaft-loop-unrolling'] as const

/**
 * At its limit a thread gets 16 MB more to end in. A collection that needs more than that ends the
 * process, and it may find a third of the young generation alive: see the decision above.
 */
const MAX_YOUNG_GENERATION_MB = 36

export interface WorkerOptions {
  name: string
  /** The file that the worker runs: it loads the tasks, then calls `serveTasks()`. */
  entry: URL
  /** The worker's memory for objects and strings. */
  maxHeapMb: number
}

export interface WorkerEvents {
  done: (worker: PoolWorker, message: DoneMessage) => void
  progress: (worker: PoolWorker, id: number, fraction: number) => void
  /** Follows every end of a worker that had started, including `terminate()`. */
  exited: (worker: PoolWorker, error: Error) => void
}

/** A thread or a child process as the pool sees it: it runs the first of its calls. */
export abstract class PoolWorker {
  readonly name: string
  readonly calls: Call[] = []
  /** How long `calls` will probably take. */
  expectedMs = 0
  /** When it began its first call, or became idle. */
  since = performance.now()
  /** `cancelling`: gets no call until the cancelled one has ended. `terminating`: gets none. */
  state: 'serving' | 'cancelling' | 'terminating' = 'serving'
  /** The call whose code made the worker exit, where that is known. */
  exitOwner: Owner | undefined = undefined
  /** How many messages it may have, begun or not. */
  abstract readonly capacity: number
  /** The index of the input that its chunk works on. */
  abstract readonly item: number
  readonly #kind: string
  readonly #events: WorkerEvents

  constructor(name: string, kind: 'thread' | 'process', events: WorkerEvents) {
    this.name = name
    this.#kind = kind
    this.#events = events
  }

  /** @throws DataCloneError when the input cannot be sent. */
  abstract send(call: Call): void
  /** Takes a call back that was sent. False when the worker has begun it. */
  abstract revoke(call: Call): boolean
  /** Asks the call's task to end. */
  abstract cancel(call: Call): void
  /** Ends the worker at once. */
  abstract terminate(): Promise<void>

  get isIdle() {
    return this.calls.length === 0 && this.state !== 'terminating'
  }

  /** It gets its next calls together once half are done: waking a worker costs more than a call. */
  get hasPlenty() {
    return this.calls.length > this.capacity / 2
  }

  /** Whether its first call takes much longer than expected. */
  isOverdue(time: number): boolean {
    return this.since < time - OVERDUE_MS
  }

  assign(call: Call): void {
    if (this.calls.push(call) === 1) this.since = performance.now()
    this.expectedMs += call.estimateMs ?? 0
  }

  /** Removes a call that was done or revoked. */
  unassign(call: Call): void {
    this.expectedMs = Math.max(0, this.expectedMs - (call.estimateMs ?? 0))
    if (this.calls[0] !== call) {
      this.calls.splice(this.calls.indexOf(call), 1)
      return
    }
    this.calls.shift()
    this.since = performance.now()
  }

  /** @throws Error when it exits before it is ready, or is not ready in time. */
  protected async untilReady(
    exits: EventEmitter,
    messages: EventEmitter | MessagePort,
  ): Promise<void> {
    const settled = new AbortController()
    const { signal } = settled
    const exited = once(exits, 'exit', { signal }).then(([code, killedBy]) => {
      throw this.describeExit(code, killedBy, ' before it was ready')
    })
    const late = sleep(START_TIMEOUT_MS, undefined, { signal }).then(() => {
      void this.terminate()
      throw new Error(`The ${this.#kind} was not ready within ${START_TIMEOUT_MS} ms`)
    })
    try {
      await Promise.race([once(messages as EventEmitter, 'message', { signal }), exited, late])
    } finally {
      settled.abort()
    }
  }

  protected receive(message: WorkerMessage): void {
    if (message.length === 6) this.#events.done(this, message)
    else if (message.length === 2) this.#events.progress(this, ...message)
    else this.exitOwner = message[0]
  }

  protected exited(error: Error): void {
    this.#events.exited(this, error)
  }

  protected describeExit(code: number | null, killedBy?: string | null, when = ''): Error {
    const how = killedBy ? `was killed by ${killedBy}` : `exited with code ${code}`
    return new Error(`The ${this.#kind} ${how}${when}`)
  }
}

export class ThreadWorker extends PoolWorker {
  readonly capacity = MAX_IN_FLIGHT
  readonly #thread: Worker
  readonly #port: MessagePort
  readonly #cells = createCells(MAX_IN_FLIGHT)
  /** The slot taken last: most slots before it are taken, too. */
  #slot = SLOTS
  #error: Error | undefined

  /** @throws Error when it cannot load its tasks within 30 s. */
  static async start(options: WorkerOptions, events: WorkerEvents): Promise<ThreadWorker> {
    const worker = new ThreadWorker(options, events)
    await worker.untilReady(worker.#thread, worker.#port)
    const receiveRest = receiveMessages<WorkerMessage>(worker.#port, {
      onMessage: (message) => worker.receive(message),
      onUnreadable: (error) => worker.#fail(error),
    })
    worker.#thread.on('exit', (code) => {
      receiveRest()
      worker.exited(worker.#error ?? worker.describeExit(code))
    })
    return worker
  }

  private constructor({ name, entry, maxHeapMb }: WorkerOptions, events: WorkerEvents) {
    super(name, 'thread', events)
    const { port1, port2 } = new MessageChannel()
    this.#port = port1
    this.#thread = new Worker(entry, {
      name,
      workerData: { cells: this.#cells, port: port2 } satisfies ThreadData,
      transferList: [port2],
      env: createEnvironment(),
      resourceLimits: {
        maxOldGenerationSizeMb: maxHeapMb,
        maxYoungGenerationSizeMb: MAX_YOUNG_GENERATION_MB,
      },
    })
    this.#thread.on('error', (error: Error) => {
      this.#error = error
    })
  }

  get item() {
    return Atomics.load(this.#cells, ITEM)
  }

  send(call: Call): void {
    call.slot = this.#findFreeSlot()
    Atomics.store(this.#cells, call.slot, call.id)
    try {
      postMessage(this.#port, toMessage(call), call.options.transfer)
      Atomics.add(this.#cells, SENT, 1)
    } catch (error) {
      Atomics.store(this.#cells, call.slot, 0)
      throw error
    }
  }

  revoke({ slot, id }: Call): boolean {
    return Atomics.compareExchange(this.#cells, slot, id, 0) === id
  }

  cancel({ id }: Call): void {
    Atomics.store(this.#cells, CANCELLED, id)
  }

  async terminate(): Promise<void> {
    await this.#thread.terminate()
  }

  /** There is one, because at most MAX_IN_FLIGHT messages are in flight. */
  #findFreeSlot(): number {
    const next = this.#cells.indexOf(0, this.#slot)
    this.#slot = next === -1 ? this.#cells.indexOf(0, SLOTS) : next
    return this.#slot
  }

  /** A message cannot be read, so nobody knows which call it answers. */
  #fail(error: Error) {
    this.#error = error
    void this.terminate()
  }
}

/** A child process, for native code that may crash. It shares no memory and runs one call a time. */
export class ProcessWorker extends PoolWorker {
  readonly capacity = 1
  /** Unknown without shared memory. */
  readonly item = 0
  readonly #child: ChildProcess

  /** @throws Error when it cannot load its tasks within 30 s. */
  static async start(options: WorkerOptions, events: WorkerEvents): Promise<ProcessWorker> {
    const worker = new ProcessWorker(options, events)
    const child = worker.#child
    await worker.untilReady(child, child)
    // Sending to a child that dies fails; `exit` follows.
    child.on('error', () => {})
    child.on('message', (message: WorkerMessage) => worker.receive(message))
    child.on('exit', (code, killedBy) => worker.exited(worker.describeExit(code, killedBy)))
    return worker
  }

  private constructor({ name, entry, maxHeapMb }: WorkerOptions, events: WorkerEvents) {
    super(name, 'process', events)
    this.#child = fork(fileURLToPath(entry), {
      env: createEnvironment(),
      execArgv: [...REQUIRED_NODE_FLAGS, `--max-old-space-size=${maxHeapMb}`],
      // Structured clone, but it silently copies shared memory.
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    })
  }

  send(call: Call): void {
    if (call.options.transfer?.length)
      throw new DOMException('Buffers cannot be transferred to another process', 'DataCloneError')
    assertCloneable(call.input)
    call.slot = SLOTS
    this.#child.send(toMessage(call))
  }

  /** The child begins whatever it is sent. */
  revoke(): boolean {
    return false
  }

  cancel({ id }: Call): void {
    this.#child.send([id] satisfies CancelMessage)
  }

  async terminate(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const exited = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await exited
  }
}

const toMessage = ({ id, slot, task, mode, input, options }: Call): RunMessage => [
  id,
  slot,
  task,
  mode,
  input,
  options.onProgress !== undefined,
]

/** @throws DataCloneError for shared memory, too: what the task writes there would be lost. */
function assertCloneable(input: unknown) {
  try {
    new Serializer().writeValue(input)
  } catch (cause) {
    throw new DOMException((cause as Error).message, { name: 'DataCloneError', cause })
  }
}

/**
 * The environment of a worker: nothing of the service's, which holds secrets, but the folder of
 * Node's compile cache. With it a worker starts for half of the CPU time.
 */
export function createEnvironment(): NodeJS.ProcessEnv {
  enableCompileCache()
  const folder = getCompileCacheDir()
  // Each version of Node has a folder of its own in there; none where nothing can be written.
  return folder ? { NODE_COMPILE_CACHE: dirname(folder) } : {}
}
