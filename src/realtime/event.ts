import type { z } from '@hono/zod-openapi'

/** A hint with an id and a version; subscribers read the state by HTTP. */
export interface Event<Name extends string = string, Schema extends z.ZodObject = z.ZodObject> {
  readonly name: Name
  /** Its topic, as `/docs` shows it. */
  readonly topic: string
  /** A sentence for `/docs`. */
  readonly when: string
  /** Each field has a description for `/docs`. */
  readonly payload: Schema
}

/** Declares an event: `event('order.changed', { topic, when, payload: OrderChange })`. */
export const event = <const Name extends string, Schema extends z.ZodObject>(
  name: Name,
  rest: Omit<Event<Name, Schema>, 'name'>,
): Event<Name, Schema> => Object.freeze({ name, ...rest })

/** The listeners of a typed Socket.IO client. */
export type Listeners<E extends Event> = {
  [Name in E['name']]: (payload: z.infer<Extract<E, { name: Name }>['payload']>) => void
}
