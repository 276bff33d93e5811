/** What the event loop and a worker thread say to each other, and nothing else. */

/** Handed to a thread when it starts. */
export interface ThreadData {
  /** One Int32: the id of the task that was cancelled last. Written by the event loop, read in the midst of a task. */
  cancelled: Int32Array<SharedArrayBuffer>
}

export interface RunMessage {
  id: number
  task: string
  input: unknown
}

export type ThreadMessage = 'ready' | DoneMessage

/** `error` is a clone: `structuredClone` keeps an Error's name, message and stack, but not its class. */
export type DoneMessage = { id: number; runMs: number } & ({ ok: true; output: unknown } | { ok: false; error: unknown })
