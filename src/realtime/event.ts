import type { z } from '@hono/zod-openapi'

/**
 * A message pushed to subscribers: a hint that carries an id and a version, never the truth itself.
 */
export interface Event<Name extends string = string, Schema extends z.ZodObject = z.ZodObject> {
  readonly name: Name
  /** The topic whose subscribers receive it, as `/docs` shows it. */
  readonly topic: string
  /** A sentence for `/docs`. */
  readonly when: string
  /** Its fields, each with a description for `/docs`. */
  readonly payload: Schema
}

/** Declares an event: `event('product.changed', { topic, when, payload: ProductChange })`. */
export const event = <const Name extends string, Schema extends z.ZodObject>(
  name: Name,
  rest: Omit<Event<Name, Schema>, 'name'>,
): Event<Name, Schema> => Object.freeze({ name, ...rest })

/** The Socket.IO listener map of a union of events: what a typed client listens to. */
export type Listeners<E extends Event> = {
  [Name in E['name']]: (payload: z.infer<Extract<E, { name: Name }>['payload']>) => void
}
