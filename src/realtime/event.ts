declare const types: unique symbol

/**
 * A message pushed to browsers: a hint that carries an id and a version, never the truth itself.
 */
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
 * Names an event: `event<ProductChange>()('product.changed', guide)`; two calls, so that the name's
 * type is inferred.
 */
export const event =
  <Payload>() =>
  <Name extends string>(name: Name, guide: EventGuide<Payload>): Event<Name, Payload> =>
    Object.freeze({ name, ...guide })

/** The Socket.IO listener map of a union of events: what a typed client listens to. */
export type Listeners<E extends Event<string, unknown>> = {
  [Name in E['name']]: (payload: PayloadOf<Extract<E, { name: Name }>>) => void
}

type PayloadOf<E> = E extends Event<string, infer Payload> ? Payload : never
