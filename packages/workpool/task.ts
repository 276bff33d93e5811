import type { Transferable } from 'node:worker_threads'

declare const types: unique symbol

/** The contract of CPU work: a name, and types that survive `structuredClone`. */
export interface Task<Input, Output> {
  readonly name: string
  readonly [types]?: (input: Input) => Output
  /** As in TaskOptions; the types are erased, so that any task is a Task of some types. */
  readonly split: ((input: never, parts: number) => readonly unknown[]) | undefined
  readonly join: ((left: never, right: never) => unknown) | undefined
}

/** Pure functions that let `pool.map` divide one input and combine outputs. */
export interface TaskOptions<Input, Output> {
  /** Cuts an input into at most about `parts` pieces that take about the same time each. */
  split?: (input: Input, parts: number) => readonly Input[]
  /** Combines two neighbouring outputs. Must be associative; need not be commutative. */
  join?: (left: Output, right: Output) => Output
}

/**
 * Declares a task: `task<{ from: number; to: number }, number>('primes.count')`.
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

/** What a running task can learn from its caller and report to it. */
export interface TaskContext {
  /** Whether the caller no longer waits. Reading it costs a few nanoseconds. */
  readonly cancelled: boolean
  /** Ends a cancelled task. A task that never checks is terminated together with its worker. */
  throwIfCancelled(): void
  /** Reports the fraction that is done, from 0 to 1. Call it freely: reports are throttled. */
  progress(fraction: number): void
  /** Moves buffers instead of copying them: `return context.transfer(bytes, [bytes.buffer])`. */
  transfer<Value>(value: Value, buffers: readonly Transferable[]): Value
}

/** The context of a task's function that is called directly, as tests do: never cancelled. */
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

/**
 * Registers the function that runs a task: plain data in, plain data out, no I/O. Call it at the
 * top level of a file that every worker loads.
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

/** @throws Error when no file that the worker loaded implements the task. */
export function findImplementation(name: string): Implementation {
  const implementation = implementations.get(name)
  if (!implementation) throw new Error(`No file that the worker loaded implements the task ${name}`)
  return implementation
}
