/**
 * Typed names for what leaves the event loop: a feature's `contract.ts` declares them with these constructors, and both
 * ends use the same constant. No I/O here, so that a worker thread can load a contract.
 */

declare const types: unique symbol

/** CPU work: runs on a worker thread, takes `Input`, gives `Output`; both must survive `structuredClone`. */
export interface Task<Input, Output> {
  readonly name: string
  readonly [types]?: (input: Input) => Output
  /** As in TaskOptions, whose types it forgets: a task for numbers is a task for anything. */
  readonly split: ((input: never, parts: number) => readonly unknown[]) | undefined
  readonly join: ((left: never, right: never) => unknown) | undefined
}

/** How `compute.map` may take a task's work apart and put its results together: pure functions both. */
export interface TaskOptions<Input, Output> {
  /** Cuts an input into about so many that need about the same time each, or fewer where it is not worth it. */
  split?: (input: Input, parts: number) => readonly Input[]
  /** Makes one output of two neighbouring ones; `join(join(a, b), c)` must give what `join(a, join(b, c))` does. */
  join?: (left: Output, right: Output) => Output
}

/**
 * Work that outlives a request: a row in the database until it is done. `Input` and `Result` are JSON.
 * Each option is the job's default.
 */
export interface Job<Input, Result> {
  readonly name: string
  readonly [types]?: (input: Input) => Result
  /** How often it is begun at most, by whatever it ended: a failure, a timeout, the death of its process. */
  readonly attempts: number
  /** How long one attempt may take before its signal aborts. */
  readonly timeoutMs: number
  /** After the nth failure it waits up to `backoffMs * 2 ** (n - 1)`, at random. */
  readonly backoffMs: number
}

/** A message pushed to browsers: a hint that carries an id and a version, never the truth itself. */
export interface Event<Name extends string, Payload> extends EventGuide<Payload> {
  readonly name: Name
  readonly [types]?: Payload
}

/** What `/docs` says of an event. */
export interface EventGuide<Payload> {
  /** Who subscribes to this hears it. */
  readonly topic: string
  readonly when: string
  /** What each field of the payload means, in Markdown. */
  readonly payload: { readonly [Field in keyof Payload]-?: string }
}

/**
 * Names a task: `task<{ from: number; to: number }, number>('primes.count')`.
 *
 * @throws Error when it can be split but not joined.
 */
export function task<Input, Output>(name: string, { split, join }: TaskOptions<Input, Output> = {}): Task<Input, Output> {
  if (split && !join) throw new Error(`The task ${name} has a split: it needs a join, too`)
  return Object.freeze({ name, split, join })
}

/** Names a job: `job<{ id: string }, Summary>('report.build', { attempts: 3 })`. */
export function job<Input, Result = void>(
  name: string,
  { attempts = 5, timeoutMs = 600_000, backoffMs = 1_000 }: Partial<Omit<Job<Input, Result>, 'name'>> = {},
): Job<Input, Result> {
  return Object.freeze({ name, attempts, timeoutMs, backoffMs })
}

/** Names an event: `event<ProductChange>()('product.changed', guide)`; two calls, so that the name's type is inferred. */
export const event =
  <Payload>() =>
  <Name extends string>(name: Name, guide: EventGuide<Payload>): Event<Name, Payload> =>
    Object.freeze({ name, ...guide })

/** The Socket.IO listener map of a union of events: what a typed client listens to. */
export type Listeners<E extends Event<string, unknown>> = {
  [Name in E['name']]: (payload: PayloadOf<Extract<E, { name: Name }>>) => void
}

type PayloadOf<E> = E extends Event<string, infer Payload> ? Payload : never
