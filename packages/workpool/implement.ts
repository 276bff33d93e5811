import type { Transferable } from 'node:worker_threads'
import type { Task } from './task.ts'

/** What a task learns about its caller while it runs, and can tell it. */
export interface TaskContext {
  /** Whether nobody waits for the result any more. Reading it costs a few nanoseconds. */
  readonly cancelled: boolean
  /**
   * Ends the task when it was cancelled. One that never asks is terminated, together with its
   * thread.
   */
  throwIfCancelled(): void
  /**
   * Says how much is done, from 0 to 1; as often as you like, since the caller gets it a few times
   * a second at most.
   */
  progress(fraction: number): void
  /**
   * Gives `value` back with these buffers moved instead of copied: `return context.transfer(bytes,
   * [bytes.buffer])`.
   */
  transfer<Value>(value: Value, buffers: readonly Transferable[]): Value
}

export interface Implementation {
  run: (input: unknown, context: TaskContext) => unknown
  join: ((left: unknown, right: unknown) => unknown) | undefined
}

/**
 * The context of a call that nobody can cancel: for a task's function called directly, as a test
 * does.
 */
export const UNCANCELLABLE: TaskContext = {
  cancelled: false,
  throwIfCancelled() {},
  progress() {},
  transfer: (value) => value,
}

const implementations = new Map<string, Implementation>()

/**
 * Says what runs when `task` is called: a pure function, plain data in, plain data out, no I/O.
 * Call it at the top level of a feature's `compute.ts`, which every worker thread loads.
 *
 * @throws Error when the name is taken.
 */
export function implement<Input, Output>(
  task: Task<Input, Output>,
  run: (input: Input, context: TaskContext) => Output | Promise<Output>,
): void {
  if (implementations.has(task.name)) throw new Error(`Two tasks are named ${task.name}`)
  implementations.set(task.name, { run, join: task.join } as Implementation)
}

/** @throws Error when no loaded `compute.ts` implements it. */
export function implementationOf(name: string): Implementation {
  const implementation = implementations.get(name)
  if (!implementation) throw new Error(`No compute.ts implements the task ${name}`)
  return implementation
}
