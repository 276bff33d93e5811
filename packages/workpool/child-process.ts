import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { Serializer } from 'node:v8'
import type { Transferable } from 'node:worker_threads'
import { deliver, type Executor, type ExecutorEvents, untilReady } from './executor.ts'
import {
  type CancelMessage,
  type PackedDone,
  type PackedEnd,
  type PackedProgress,
  packRun,
  type RunMessage,
  SLOTS,
} from './protocol.ts'
import type { ThreadOptions } from './thread.ts'
import { threadEnvironment } from './thread-environment.ts'

/**
 * The event loop's end of a child process that serves tasks as a thread does, for native code that
 * may crash: a segmentation fault in a thread would be the end of the service. It shares no memory,
 * costs some 60 MB and 0.1 ms more per task, and takes one task at a time.
 */
export class TaskProcess implements Executor {
  readonly name: string
  readonly capacity = 1
  /** Not known from outside. */
  readonly item = 0
  readonly #child: ChildProcess

  /** Resolves when it has loaded its tasks. @throws Error when it ends before that. */
  static async start(
    { name, entry, maxHeapMb }: ThreadOptions,
    events: ExecutorEvents,
  ): Promise<TaskProcess> {
    const child = fork(fileURLToPath(entry), {
      env: threadEnvironment(),
      execArgv: [`--max-old-space-size=${maxHeapMb}`],
      // As `structuredClone` does it, but for shared memory.
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    })
    const process = new TaskProcess(name, child)
    await untilReady({
      connection: child,
      ready: (options) => once(child, 'message', options),
      kind: 'process',
      endOf,
      terminate: () => process.terminate(),
    })
    // What it is sent while it dies; its exit says the rest.
    child.on('error', () => {})
    child.on('message', (message: PackedEnd | PackedProgress | PackedDone) =>
      deliver(message, events),
    )
    child.on('exit', (code, signal) => events.exit(endOf(code, signal)))
    return process
  }

  private constructor(name: string, child: ChildProcess) {
    this.name = name
    this.#child = child
  }

  /** @throws DataCloneError when the input cannot be sent: shared memory cannot. */
  send(message: RunMessage, transfer: readonly Transferable[]): void {
    if (transfer.length > 0)
      throw new DOMException('Buffers cannot be transferred to another process', 'DataCloneError')
    assertClonable(message.input)
    message.slot = SLOTS
    this.#child.send(packRun(message))
  }

  /** It is begun as soon as it is sent. */
  recall(): boolean {
    return false
  }

  cancel(id: number): void {
    this.#child.send({ cancel: id } satisfies CancelMessage)
  }

  async terminate(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const exited = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await exited
  }
}

/**
 * The channel to the child would copy shared memory without a word: what the task writes there
 * would be lost.
 */
function assertClonable(input: unknown) {
  try {
    new Serializer().writeValue(input)
  } catch (cause) {
    throw new DOMException((cause as Error).message, { name: 'DataCloneError', cause })
  }
}

const endOf = (code: number | null, signal: NodeJS.Signals | null) =>
  new Error(signal ? `The process was killed by ${signal}` : `The process exited with code ${code}`)
