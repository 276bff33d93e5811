import { type createRoute, OpenAPIHono, z } from '@hono/zod-openapi'
import type { Handler } from 'hono'
import type { Env } from './context.ts'
import { validated } from './validation.ts'

/**
 * A router whose routes validate what they declare, and stand in the OpenAPI document.
 * Input that does not fit becomes a 422 that names every path.
 */
export function createRouter(): OpenAPIHono<Env> {
  const router = new OpenAPIHono<Env>()
  const openapi = (route: ReturnType<typeof createRoute>, handler: Handler<Env>) => {
    if (route.middleware || route.hide)
      throw new Error(`${route.path}: routes have no middleware and are not hidden`)
    router.openAPIRegistry.registerPath(route)
    return router.on(route.method, route.getRoutingPath(), validated(route.request ?? {}, handler))
  }
  // Its type says what each handler finds validated, and may answer.
  router.openapi = openapi as never
  return router
}

/** The JSON that a route takes: `request: jsonBody(ProductInput)`. */
export const jsonBody = <Schema extends z.ZodType>(schema: Schema) => ({
  body: { required: true, content: { 'application/json': { schema } } },
})

/** What a route answers with, as its OpenAPI document says it. */
export const json = <Schema extends z.ZodType>(schema: Schema, description: string) => ({
  description,
  content: { 'application/json': { schema } },
})

/**
 * The same with headers that come along: `withHeaders(json(Product, 'Created'), 'ETag',
 * 'Location')`.
 */
export const withHeaders = <Response extends object>(response: Response, ...names: string[]) => ({
  ...response,
  headers: z.object(Object.fromEntries(names.map((name) => [name, z.string()]))),
})
