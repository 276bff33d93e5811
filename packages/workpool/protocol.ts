import { type MessagePort, receiveMessageOnPort, type Transferable } from 'node:worker_threads'
import { MAX_BURST } from './policy.ts'

/**
 * What the pool and a worker (a thread or a child process) send each other. Messages are arrays:
 * cloning the names of keys would be a third of what a short task costs.
 */

/** One run; one run per input of a list; or the latter with the outputs joined to one. */
export type Mode = 'one' | 'each' | 'joined'

/** Ids are unique in the process, and never 0. */
export type RunMessage = readonly [
  id: number,
  slot: number,
  task: string,
  mode: Mode,
  input: unknown,
  wantsProgress: boolean,
]

/** Only child processes get it: threads read the same from shared memory. */
export type CancelMessage = readonly [id: number]

/** The first message of a worker, which has loaded its tasks. */
export type ReadyMessage = readonly []
export type ProgressMessage = readonly [id: number, fraction: number]

/** The last message of a worker that exits by itself: whose code made it exit. */
export type ExitMessage = readonly [owner: Owner]

/** The call that code belongs to, even when it runs on after the call was answered. */
export interface Owner {
  id: number
  task: string
}

/**
 * `startedAt` is in milliseconds since the epoch. `value` is the output, or the clone of an error.
 * `items` says how many inputs of a chunk have an output, or the index of the one that failed.
 */
export type DoneMessage = readonly [
  id: number,
  startedAt: number,
  runMs: number,
  failed: boolean,
  value: unknown,
  items: number,
]

export type WorkerMessage = ReadyMessage | ExitMessage | ProgressMessage | DoneMessage

/**
 * Memory that a thread shares with the pool, as Int32s. `CANCELLED`: the id of the last message
 * that was cancelled. `ITEM`: the index of the input that a chunk works on. `SENT`: how many
 * messages were sent. From `SLOTS` on: the ids of messages that were sent and not begun. Whoever
 * swaps such an id for 0 has the message: the thread to run it, or the pool to revoke it.
 */
export const CANCELLED = 0
export const ITEM = 1
export const SENT = 2
export const SLOTS = 3
export type Cells = Int32Array<SharedArrayBuffer>

export const createCells = (slots: number): Cells =>
  new Int32Array(new SharedArrayBuffer((SLOTS + slots) * Int32Array.BYTES_PER_ELEMENT))

/** A thread's `workerData`. The port replaces `parentPort`, which cannot be read in bursts. */
export interface ThreadData {
  cells: Cells
  port: MessagePort
}

interface Receiver<Message> {
  onMessage: (message: Message) => void
  onUnreadable: (error: Error) => void
  /** Asked when all messages were received; true when another may have arrived. */
  awaitNext?: () => boolean
}

/**
 * Receives messages in bursts: the first by an event, which costs more than a short task does, and
 * the others that have arrived by then without one.
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
    // Node emits up to a thousand messages per turn of the event loop: only one begins a burst.
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
  // Node walks through an empty list from C++, which costs as much as all the rest.
  if (transfer.length === 0) port.postMessage(message)
  else port.postMessage(message, [...transfer])
}
