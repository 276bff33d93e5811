import { type MessagePort, receiveMessageOnPort, type Transferable } from 'node:worker_threads'
import { MAX_BURST } from './policy.ts'

/** Messages are arrays: cloning key names is a third of a short task's cost. */

/** One run; one run per input; or the latter with the outputs joined. */
export type Mode = 'one' | 'each' | 'joined'

export type RunMessage = readonly [
  id: number,
  slot: number,
  task: string,
  mode: Mode,
  input: unknown,
]

/** Only for child processes: threads read shared memory. */
export type CancelMessage = readonly [id: number]

export type ProgressMessage = readonly [id: number, fraction: number]

/** The call that code belongs to, even after its answer. */
export interface Owner {
  id: number
  task: string
}

/**
 * `startedAt` is in milliseconds since the epoch, `value` the output or error, `items` the number
 * of inputs served or the index of the one that failed.
 */
export type DoneMessage = readonly [
  id: number,
  startedAt: number,
  runMs: number,
  failed: boolean,
  value: unknown,
  items: number,
]

/** The first message is empty: the worker is ready. The last names whose code made it exit. */
export type WorkerMessage =
  | readonly []
  | readonly [exitOwner: Owner]
  | ProgressMessage
  | DoneMessage

/**
 * Memory shared by a thread and the pool: the id cancelled last, the index of the chunk's current
 * input, the number of messages sent and, from `slots` on, the ids of messages not begun. The side
 * that swaps such an id for 0 owns the message: the thread runs it, the pool revokes it.
 */
export const CELL = { cancelled: 0, item: 1, sent: 2, slots: 3 } as const
export type Cells = Int32Array<SharedArrayBuffer>

export const createCells = (slots: number): Cells =>
  new Int32Array(new SharedArrayBuffer((CELL.slots + slots) * Int32Array.BYTES_PER_ELEMENT))

/** A thread's `workerData`. The port replaces `parentPort`, which cannot be read in bursts. */
export interface ThreadData {
  cells: Cells
  port: MessagePort
}

interface Receiver<Message> {
  onMessage: (message: Message) => void
  onUnreadable: (error: Error) => void
  /** Whether to look again when no message is left. */
  awaitNext?: () => boolean
}

/**
 * Receives only the first message of a burst by an event, which costs more than a short task.
 *
 * @returns a function that receives what is left once the other end is gone.
 */
export function receiveMessages<Message>(
  port: MessagePort,
  { onMessage, onUnreadable, awaitNext = () => false }: Receiver<Message>,
): () => void {
  let isTurnDue = false
  let isClosed = false
  const receive = (most: number) => {
    // Node 26 crashes when a port is read while it closes.
    if (isClosed) return
    try {
      for (let received = 0; received < most; received++) {
        const next = receiveMessageOnPort(port)
        if (next) onMessage(next.message)
        else if (!awaitNext()) return
      }
    } catch (error) {
      return onUnreadable(error as Error)
    }
    // Node emits up to a thousand messages per turn: only one begins a burst.
    isTurnDue = true
    setImmediate(() => {
      isTurnDue = false
    })
  }
  port.on('close', () => {
    isClosed = true
  })
  port.on('messageerror', onUnreadable)
  port.on('message', (first) => {
    onMessage(first)
    if (!isTurnDue) receive(MAX_BURST)
  })
  return () => receive(Number.POSITIVE_INFINITY)
}

/** @throws DataCloneError when the message cannot be cloned. */
export function postMessage(
  port: MessagePort,
  message: unknown,
  transfer: readonly Transferable[] = [],
): void {
  // Even an empty list doubles the cost.
  if (transfer.length === 0) port.postMessage(message)
  else port.postMessage(message, [...transfer])
}
