declare const types: unique symbol

/**
 * CPU work: runs on a worker thread, takes `Input`, gives `Output`; both must survive
 * `structuredClone`.
 */
export interface Task<Input, Output> {
  readonly name: string
  readonly [types]?: (input: Input) => Output
  /** As in TaskOptions, whose types it forgets: a task for numbers is a task for anything. */
  readonly split: ((input: never, parts: number) => readonly unknown[]) | undefined
  readonly join: ((left: never, right: never) => unknown) | undefined
}

/**
 * How `compute.map` may take a task's work apart and put its results together: pure functions both.
 */
export interface TaskOptions<Input, Output> {
  /**
   * Cuts an input into about so many that need about the same time each, or fewer where it is not
   * worth it.
   */
  split?: (input: Input, parts: number) => readonly Input[]
  /**
   * Makes one output of two neighbouring ones; `join(join(a, b), c)` must give what `join(a,
   * join(b, c))` does.
   */
  join?: (left: Output, right: Output) => Output
}

/**
 * Names a task: `task<{ from: number; to: number }, number>('primes.count')`.
 *
 * @throws Error when it can be split but not joined.
 */
export function task<Input, Output>(
  name: string,
  { split, join }: TaskOptions<Input, Output> = {},
): Task<Input, Output> {
  if (split && !join) throw new Error(`The task ${name} has a split: it needs a join, too`)
  return Object.freeze({ name, split, join })
}
