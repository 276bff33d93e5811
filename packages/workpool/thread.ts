import { once } from 'node:events'
import { MessageChannel, type MessagePort, type Transferable, Worker } from 'node:worker_threads'
import { deliver, type Executor, type ExecutorEvents, untilReady } from './executor.ts'
import { postMessage, receiveMessages } from './messages.ts'
import {
  CANCELLED,
  type Cells,
  ITEM,
  MAX_IN_FLIGHT,
  type PackedDone,
  type PackedEnd,
  type PackedProgress,
  packRun,
  type RunMessage,
  SENT,
  SLOTS,
  type ThreadData,
} from './protocol.ts'
import { threadEnvironment } from './thread-environment.ts'

/**
 * Node lets a thread that reached its limit have 16 MB more to end in, and V8 ends the process
 * where one collection needs more than that. It may find all young objects alive, a third of this:
 * docs/decisions/011-threads-that-end.md
 */
const MAX_YOUNG_GENERATION_MB = 36

export interface ThreadOptions {
  name: string
  /** The file that it runs: loads the tasks, then calls `serveTasks()`. */
  entry: URL
  /**
   * Beyond it, a task that runs out of memory takes its thread along; see ComputeOptions for what
   * it does not stop.
   */
  maxHeapMb: number
}

/** The event loop's end of one worker thread. */
export class Thread implements Executor {
  readonly name: string
  readonly capacity = MAX_IN_FLIGHT
  readonly #worker: Worker
  readonly #port: MessagePort
  readonly #cells: Cells = new Int32Array(
    new SharedArrayBuffer((SLOTS + MAX_IN_FLIGHT) * Int32Array.BYTES_PER_ELEMENT),
  )
  /** The last one that was taken: most before it are taken, too. */
  #slot = SLOTS
  #error: Error | undefined

  /**
   * Resolves when it has loaded its tasks. @throws Error when it ends before that, or takes longer
   * than 30 s.
   */
  static async start(options: ThreadOptions, events: ExecutorEvents): Promise<Thread> {
    const thread = new Thread(options)
    await untilReady({
      connection: thread.#worker,
      ready: (options) => once(thread.#port, 'message', options),
      kind: 'thread',
      endOf: () => thread.#error ?? new Error('The thread exited before it was ready'),
      terminate: () => thread.terminate(),
    })
    const receiveRest = receiveMessages<PackedEnd | PackedProgress | PackedDone>(thread.#port, {
      onMessage: (message) => deliver(message, events),
      onUnreadable: (error) => thread.#giveUp(error),
    })
    thread.#worker.on('exit', (code) => {
      receiveRest()
      events.exit(thread.#error ?? new Error(`The thread exited with code ${code}`))
    })
    return thread
  }

  private constructor({ name, entry, maxHeapMb }: ThreadOptions) {
    this.name = name
    const { port1, port2 } = new MessageChannel()
    this.#port = port1
    const workerData: ThreadData = { cells: this.#cells, port: port2 }
    const resourceLimits = {
      maxOldGenerationSizeMb: maxHeapMb,
      maxYoungGenerationSizeMb: MAX_YOUNG_GENERATION_MB,
    }
    this.#worker = new Worker(entry, {
      name,
      workerData,
      transferList: [port2],
      env: threadEnvironment(),
      resourceLimits,
    })
    this.#worker.on('error', (error: Error) => {
      this.#error = error
    })
  }

  get item() {
    return Atomics.load(this.#cells, ITEM)
  }

  send(message: RunMessage, transfer: readonly Transferable[]): void {
    message.slot = this.#freeSlot()
    Atomics.store(this.#cells, message.slot, message.id)
    try {
      postMessage(this.#port, packRun(message), transfer)
      Atomics.add(this.#cells, SENT, 1)
    } catch (error) {
      Atomics.store(this.#cells, message.slot, 0)
      throw error
    }
  }

  recall({ slot, id }: RunMessage): boolean {
    return Atomics.compareExchange(this.#cells, slot, id, 0) === id
  }

  cancel(id: number): void {
    Atomics.store(this.#cells, CANCELLED, id)
  }

  async terminate(): Promise<void> {
    await this.#worker.terminate()
  }

  /** One that holds 0: there is one, since no more than MAX_IN_FLIGHT are in flight. */
  #freeSlot(): number {
    const next = this.#cells.indexOf(0, this.#slot)
    this.#slot = next === -1 ? this.#cells.indexOf(0, SLOTS) : next
    return this.#slot
  }

  /** An answer cannot be read: whose it was cannot be known either. */
  #giveUp(error: Error) {
    this.#error = error
    void this.terminate()
  }
}
