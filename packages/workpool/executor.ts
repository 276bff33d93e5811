import { type EventEmitter, once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Transferable } from 'node:worker_threads'
import {
  type DoneMessage,
  type Owner,
  type PackedDone,
  type PackedEnd,
  type PackedProgress,
  type ProgressMessage,
  type RunMessage,
  unpackDone,
} from './protocol.ts'

/** What an executor may take to load its tasks. */
const START_TIMEOUT_MS = 30_000

/** What runs messages, one after the other: a worker thread, or a child process. */
export interface Executor {
  readonly name: string
  /** How many messages it may hold, begun or not. */
  readonly capacity: number
  /** Which input of its chunk it works on. */
  readonly item: number
  /** @throws DataCloneError when the input cannot be sent. */
  send(message: RunMessage, transfer: readonly Transferable[]): void
  /** Takes a message back; false when it was begun. */
  recall(message: RunMessage): boolean
  /** Asks the message's task to end. */
  cancel(id: number): void
  /** Ends it together with what it does; `exit` is told as of any other end. */
  terminate(): Promise<void>
}

export interface ExecutorEvents {
  done: (message: DoneMessage) => void
  progress: (message: ProgressMessage) => void
  /** It is about to exit by itself, because of code that belongs to this message. */
  ending: (ender: Owner) => void
  /** It is gone, with what ended it: an uncaught error, an exit code, a signal. */
  exit: (error: Error) => void
}

/**
 * Starts one, and resolves when it has loaded its tasks. @throws Error when it ends before that, or
 * takes too long.
 */
export type StartExecutor = (events: ExecutorEvents) => Promise<Executor>

/** How the event loop's end of an executor starts, whether that is a Worker or a ChildProcess. */
interface Start {
  connection: EventEmitter
  /** Resolves with its first message, which says that it has loaded its tasks. */
  ready: (options: { signal: AbortSignal }) => Promise<unknown>
  /** `thread` or `process`, for the errors. */
  kind: string
  /** What its exit means before it was ready. */
  endOf: (...exit: never[]) => Error
  terminate: () => Promise<void>
}

/** @throws Error when it ends before, or is late. */
export async function untilReady({
  connection,
  ready,
  kind,
  endOf,
  terminate,
}: Start): Promise<void> {
  const settled = new AbortController()
  const { signal } = settled
  const exited = once(connection, 'exit', { signal }).then((exit) => {
    throw endOf(...(exit as never[]))
  })
  const late = sleep(START_TIMEOUT_MS, undefined, { signal }).then(() => {
    void terminate()
    throw new Error(`The ${kind} was not ready within ${START_TIMEOUT_MS} ms`)
  })
  try {
    await Promise.race([ready({ signal }), exited, late])
  } finally {
    settled.abort()
  }
}

/** Passes on what a ready executor says. */
export function deliver(
  message: PackedEnd | PackedProgress | PackedDone,
  { ending, progress, done }: ExecutorEvents,
): void {
  if (message.length === 1) ending(message[0])
  else if (message.length === 2) progress({ id: message[0], progress: message[1] })
  else done(unpackDone(message))
}
