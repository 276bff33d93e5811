/**
 * Typed names for what leaves the event loop: a feature's `contract.ts` declares them with these constructors, and both
 * ends use the same constant. No I/O here, so that a worker thread can load a contract.
 */

declare const types: unique symbol

/** CPU work: runs on a worker thread, takes `Input`, gives `Output`; both must survive `structuredClone`. */
export interface Task<Input, Output> {
  readonly name: string
  readonly [types]?: (input: Input) => Output
}

/** A message pushed to browsers: a hint that carries an id and a version, never the truth itself. */
export interface Event<Name extends string, Payload> {
  readonly name: Name
  readonly [types]?: Payload
}

/** Names a task: `task<{ from: number; to: number }, number>('primes.count')`. */
export const task = <Input, Output>(name: string): Task<Input, Output> => Object.freeze({ name })

/** Names an event: `event<ProductChange>()('product.changed')`; two calls, so that the name's type is inferred. */
export const event =
  <Payload>() =>
  <Name extends string>(name: Name): Event<Name, Payload> =>
    Object.freeze({ name })

/** The Socket.IO listener map of a union of events: what a typed client listens to. */
export type Listeners<E extends Event<string, unknown>> = {
  [Name in E['name']]: (payload: PayloadOf<Extract<E, { name: Name }>>) => void
}

type PayloadOf<E> = E extends Event<string, infer Payload> ? Payload : never
