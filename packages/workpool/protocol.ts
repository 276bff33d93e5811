import type { MessagePort } from 'node:worker_threads'

/**
 * What the event loop and an executor (a worker thread, or a child process) say to each other, and
 * nothing else.
 */

/**
 * How many messages an executor may hold: enough for the shortest tasks to follow each other
 * without a pause.
 */
export const MAX_IN_FLIGHT = 64

/**
 * Shared memory of a thread and the event loop, Int32s. `CANCELLED`: the id of the message that was
 * cancelled last. `ITEM`: which of its inputs a chunk works on. `SENT`: how many messages were sent
 * to the thread, for it to look at while it waits for the next. From `SLOTS` on: the ids of
 * messages that were sent and not begun. Whoever swaps such an id for 0 has the message: the
 * thread, to run it, or the event loop, to take it back.
 */
export const CANCELLED = 0
export const ITEM = 1
export const SENT = 2
export const SLOTS = 3
export type Cells = Int32Array<SharedArrayBuffer>

/** Handed to a thread when it starts. */
export interface ThreadData {
  cells: Cells
  /**
   * Its end of the connection. Not `parentPort`: of that, the event loop's end cannot be read in
   * bursts.
   */
  port: MessagePort
}

/**
 * What a message asks for: one run; one run for each input of a list; or that, with the outputs
 * joined to one.
 */
export type Mode = 'one' | 'each' | 'joined'

export interface RunMessage {
  /** Unique in the process; never 0. */
  id: number
  slot: number
  task: string
  mode: Mode
  input: unknown
  wantsProgress: boolean
}

/** A message that code belongs to, which may run on after the answer. */
export type Owner = Pick<RunMessage, 'id' | 'task'>

/** To a child process only: threads read the same from shared memory. */
export interface CancelMessage {
  cancel: number
}

export interface ProgressMessage {
  id: number
  progress: number
}

/**
 * `items` is how many inputs of a chunk were served: when that takes much longer than expected, the
 * rest comes back. `error` is a clone: `structuredClone` keeps an Error's name, message and stack,
 * but not its class.
 */
export type DoneMessage = {
  id: number
  /** Milliseconds since the epoch. */
  startedAt: number
  runMs: number
} & ({ output: unknown; items: number } | { error: unknown; item: number })

/**
 * Messages travel as arrays: copying the names of their keys would be a third of what a short task
 * costs. The first of an executor, an empty one, says that it has loaded its tasks.
 */
export type PackedRun = readonly [
  id: number,
  slot: number,
  task: string,
  mode: Mode,
  input: unknown,
  wantsProgress: boolean,
]
export type PackedProgress = readonly [id: number, progress: number]
export type PackedDone = readonly [
  id: number,
  startedAt: number,
  runMs: number,
  failed: boolean,
  value: unknown,
  items: number,
]
/** The last of an executor that ends by itself: whose code ended it. */
export type PackedEnd = readonly [ender: Owner]
export type Packed = readonly [] | PackedEnd | PackedProgress | PackedDone

export function packRun({ id, slot, task, mode, input, wantsProgress }: RunMessage): PackedRun {
  return [id, slot, task, mode, input, wantsProgress]
}

export function unpackRun([id, slot, task, mode, input, wantsProgress]: PackedRun): RunMessage {
  return { id, slot, task, mode, input, wantsProgress }
}

export function unpackDone([id, startedAt, runMs, failed, value, items]: PackedDone): DoneMessage {
  return failed
    ? { id, startedAt, runMs, error: value, item: items }
    : { id, startedAt, runMs, output: value, items }
}
