import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import type { DoneMessage, RunMessage, ThreadData, ThreadMessage } from './protocol.ts'

/** Within a limit, a task that runs out of memory takes its thread along; without one, often the process. */
const MAX_HEAP_MB = 1_024

interface ThreadEvents {
  done: (message: DoneMessage) => void
  /** The thread is gone, with what ended it: an uncaught error, an exit code, or our `terminate()`. */
  exit: (error: Error) => void
}

/** The event loop's end of one worker thread. */
export class Thread {
  readonly name: string
  /** Whether its end is decided: whatever it still says comes too late. */
  terminating = false
  readonly #worker: Worker
  readonly #cancelled = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT))
  #error: Error | undefined

  /** Starts the thread; resolves when it has loaded its tasks. @throws Error when it ends before that. */
  static async start(entry: URL, name: string, events: ThreadEvents): Promise<Thread> {
    const thread = new Thread(entry, name)
    await thread.#ready()
    thread.#worker.on('message', (message: ThreadMessage) => {
      if (message !== 'ready' && !thread.terminating) events.done(message)
    })
    thread.#worker.on('exit', (code) => events.exit(thread.#error ?? new Error(`The thread exited with code ${code}`)))
    return thread
  }

  private constructor(entry: URL, name: string) {
    this.name = name
    const workerData: ThreadData = { cancelled: this.#cancelled }
    this.#worker = new Worker(entry, { name, workerData, env: {}, resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MB } })
    this.#worker.on('error', (error: Error) => {
      this.#error = error
    })
  }

  /** @throws DataCloneError when the input cannot be sent to a thread. */
  run(message: RunMessage): void {
    this.#worker.postMessage(message)
  }

  /** Asks the running task to end. */
  cancel(id: number): void {
    Atomics.store(this.#cancelled, 0, id)
  }

  async terminate(): Promise<void> {
    this.terminating = true
    await this.#worker.terminate()
  }

  async #ready() {
    const exited = once(this.#worker, 'exit').then(() => {
      throw this.#error ?? new Error('The thread exited before it was ready')
    })
    exited.catch(() => {})
    await Promise.race([once(this.#worker, 'message'), exited])
  }
}
