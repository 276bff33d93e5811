import type { Transferable } from 'node:worker_threads'

declare const types: unique symbol

/** The contract of CPU work: a name, and types that survive `structuredClone`. */
export interface Task<Input, Output> {
  readonly name: string
  readonly [types]?: (input: Input) => Output
  /** See TaskOptions. */
  readonly split: ((input: never, parts: number) => readonly unknown[]) | undefined
  readonly join: ((left: never, right: never) => unknown) | undefined
}

/** Pure functions for `pool.map`. */
export interface TaskOptions<Input, Output> {
  /** Cuts an input into about `parts` pieces of similar run time. */
  split?: (input: Input, parts: number) => readonly Input[]
  /** Combines two neighbouring outputs; must be associative. */
  join?: (left: Output, right: Output) => Output
}

/**
 * Declares a task: `task<{ text: string }, string>('text.hash')`.
 *
 * @throws Error when it has `split` without `join`.
 */
export function task<Input, Output>(
  name: string,
  { split, join }: TaskOptions<Input, Output> = {},
): Task<Input, Output> {
  if (split && !join) throw new Error(`The task ${name} has a split: it needs a join, too`)
  return Object.freeze({ name, split, join })
}

export interface TaskContext {
  /** Whether the caller has stopped waiting; cheap to read. */
  readonly cancelled: boolean
  /** Ends a cancelled task, whose worker would otherwise be terminated. */
  throwIfCancelled(): void
  /** Reports the fraction done, from 0 to 1. */
  progress(fraction: number): void
  /** Moves buffers: `return context.transfer(bytes, [bytes.buffer])`. */
  transfer<Value>(value: Value, buffers: readonly Transferable[]): Value
}

/** For calling a task's function directly. */
export const detachedContext: TaskContext = {
  cancelled: false,
  throwIfCancelled() {},
  progress() {},
  transfer: (value) => value,
}

export interface Implementation {
  run: (input: unknown, context: TaskContext) => unknown
  join: ((left: unknown, right: unknown) => unknown) | undefined
}

const implementations = new Map<string, Implementation>()

export const listTasks = task<null, string[]>('workpool.list-tasks')
implement(listTasks, () => [...implementations.keys()])

/**
 * Registers a task's function, in a file that every worker loads.
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

export function findImplementation(name: string): Implementation {
  const implementation = implementations.get(name)
  if (!implementation) throw new Error(`No file that the worker loaded implements the task ${name}`)
  return implementation
}
