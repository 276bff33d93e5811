import { OpenAPIHono, type RouteConfig, type RouteHandler } from '@hono/zod-openapi'
import type { Handler, Hono, TypedResponse, ValidationTargets } from 'hono'
import type { StatusCode } from 'hono/utils/http-status'
import type { JSONParsed } from 'hono/utils/types'
import { type ZodError, z } from 'zod'
import { AppError, type Issue } from '../errors.ts'
import type { Access } from '../roles.ts'
import { type AppContext, type Env, getContext, type Limit } from './context.ts'

/** Its routes validate what they declare and appear in the OpenAPI document. */
export type Router = Hono<Env> &
  Pick<OpenAPIHono<Env>, 'openAPIRegistry' | 'getOpenAPI31Document'> & {
    openapi<Responses extends RouteConfig['responses'], Request extends RouteRequest = object>(
      route: Route<Responses, Request>,
    ): Router
  }

type RouteRequest = NonNullable<RouteConfig['request']>

interface Route<Responses, Request extends RouteRequest>
  extends Omit<RouteConfig, 'request' | 'responses'> {
  access: Access
  /** By default `read` for GET, otherwise `write`. */
  limit?: Limit
  request?: Request
  responses: Responses
  handler(c: RouteContext<Request>): RouteResponse<Responses> | Promise<RouteResponse<Responses>>
}

type RouteContext<Request extends RouteRequest> = Parameters<
  RouteHandler<Omit<RouteConfig, 'request'> & { request: Request }, Env>
>[0]

type RouteResponse<Responses> = {
  [Status in keyof Responses & StatusCode]: Responses[Status] extends { content: infer Content }
    ? ContentResponse<Content, Status>
    : TypedResponse<null, Status, 'body'>
}[keyof Responses & StatusCode]

type ContentResponse<Content, Status extends StatusCode> = {
  [Type in keyof Content]: Type extends 'application/json'
    ? Content[Type] extends { schema: infer Schema extends z.ZodType }
      ? TypedResponse<JSONParsed<z.output<Schema>>, Status, 'json'>
      : never
    : TypedResponse<
        string | ArrayBuffer | Uint8Array<ArrayBuffer> | ReadableStream | null,
        Status,
        'body'
      >
}[keyof Content]

type AnyRoute = RouteConfig & { access: Access; limit?: Limit; handler: Handler<Env> }

/** Replaces Hono's `openapi`, whose type accepts any response once one of them has no body. */
export function createRouter(): Router {
  const router = new OpenAPIHono<Env>()
  const openapi = ({ access, limit, handler, ...route }: AnyRoute): Router => {
    if (route.middleware || route.hide)
      throw new Error(`${route.path}: routes have no middleware and are not hidden`)
    router.openAPIRegistry.registerPath({ ...route, security: toSecurity(access) })
    const path = route.path.replaceAll(/{(.+?)}/g, ':$1')
    const own = limit ?? (route.method === 'get' ? 'read' : 'write')
    router.on(route.method, path, withAccess(access, validated(route.request ?? {}, handler), own))
    return checked
  }
  const checked = Object.assign(router, { openapi })
  return checked
}

const accesses = new WeakMap<object, Access>()

/** Lets only those through who have the scope, within the limit. Every route needs it. */
export function withAccess(access: Access, handler: Handler<Env>, limit?: Limit): Handler<Env> {
  const enter: Handler<Env> = (c, next) => {
    if (access === 'public') return handler(c, next)
    const { subject, identityError } = getContext(c)
    if (!subject?.scopes.has(access)) throw identityError ?? refuse(access, subject !== undefined)
    return handler(c, next)
  }
  const guarded: Handler<Env> = (c, next) => {
    const counting = limit && getContext(c).limiter?.count(c, limit)
    return counting ? counting.then(() => enter(c, next)) : enter(c, next)
  }
  accesses.set(guarded, access)
  return guarded
}

/** @throws Error for a route without `access`. */
export function listAccess(app: Hono<Env>) {
  return app.routes.flatMap(({ method, path, handler }) => {
    const access = accesses.get(handler)
    const isMiddleware = method === 'ALL' && path.endsWith('*')
    if (access === undefined && !isMiddleware)
      throw new Error(`${method} ${path} declares no access: give it one by withAccess`)
    return access === undefined ? [] : [{ method, path, access }]
  })
}

const refuse = (access: Access, isKnown: boolean) =>
  isKnown
    ? new AppError('forbidden', `You may not do this: it takes the scope ${access}`)
    : new AppError(
        'unauthenticated',
        'Sign in by POST /v1/sessions, or send `Authorization: Bearer` with an API key',
        { headers: { 'WWW-Authenticate': 'Bearer' } },
      )

const toSecurity = (access: Access): Record<string, string[]>[] =>
  access === 'public' ? [] : [{ session: [] }, { apiKey: [access] }]

/** `request: jsonBody(OrderInput)`. */
export const jsonBody = <Schema extends z.ZodType>(schema: Schema) => ({
  body: { required: true, content: { 'application/json': { schema } } },
})

/** `responses: { 200: json(Order, 'The order') }`. */
export const json = <Schema extends z.ZodType>(schema: Schema, description: string) => ({
  description,
  content: { 'application/json': { schema } },
})

/** `withHeaders(json(Order, 'Created'), 'ETag', 'Location')`. */
export const withHeaders = <Response extends object>(response: Response, ...names: string[]) => ({
  ...response,
  headers: z.object(Object.fromEntries(names.map((name) => [name, z.string()]))),
})

interface Part {
  target: keyof ValidationTargets
  /** The start of an issue's path: `body` in `body.price`. */
  name: string
  schema: unknown
  read: (c: AppContext, body: unknown) => unknown
}

const JSON_TYPE = /^application\/([\w.-]+\+)?json$/i
/** Rejects invalid bytes, which `req.json()` would silently replace. */
const UTF_8 = new TextDecoder('utf-8', { fatal: true })

/**
 * Validates before the handler. Synchronous, because zod compiles its checks for `safeParse` only
 * (docs/decisions/003).
 *
 * @throws Error for a route with cookies, forms or other JSON types, which are not validated.
 */
function validated(request: RouteRequest, handler: Handler<Env>): Handler<Env> {
  const { query, params, headers, body, ...others } = request
  const { 'application/json': json, ...otherTypes } = (body?.content ?? {}) as Record<
    string,
    { schema: unknown }
  >
  const structured = Object.keys(otherTypes).filter((type) => /form|json/i.test(type))
  const unsupported = [...Object.keys(others), ...structured]
  if (unsupported.length > 0)
    throw new Error(`Routes cannot validate ${unsupported.join(', ')}: see src/http/router.ts`)
  const all: Part[] = [
    { target: 'query', name: 'query', schema: query, read: readQuery },
    { target: 'param', name: 'path', schema: params, read: (c) => c.req.param() },
    { target: 'header', name: 'headers', schema: headers, read: (c) => c.req.header() },
    { target: 'json', name: 'body', schema: json?.schema, read: (_, body) => body },
  ]
  const parts = all.filter(({ schema }) => schema)
  if (json)
    return async (c, next) => {
      validate(parts, c, await readJson(c))
      return handler(c, next)
    }
  return (c, next) => {
    validate(parts, c)
    return handler(c, next)
  }
}

function validate(parts: Part[], c: AppContext, body?: unknown) {
  const errors: Issue[] = []
  for (const { target, name, schema, read } of parts) {
    const result = (schema as z.ZodType<object>).safeParse(read(c, body))
    if (result.success) c.req.addValidatedData(target, result.data)
    else errors.push(...toIssues(name, result.error))
  }
  if (errors.length > 0) throw validationFailed(errors)
}

export function validationFailed(errors: Issue[]): AppError {
  const paths = [...new Set(errors.map(({ path }) => path))]
  return new AppError('invalid', `Validation failed: ${paths.join(', ')}`, { errors })
}

/** A repeated name gets a list, which no string schema accepts. */
function readQuery(c: AppContext): Record<string, string | string[] | undefined> {
  const pairs = Object.entries(c.req.queries())
  return Object.fromEntries(pairs.map(([name, all]) => [name, all.length === 1 ? all[0] : all]))
}

async function readJson({ req }: AppContext): Promise<unknown> {
  const type = req.header('content-type')?.split(';')[0]?.trim()
  const isEmpty =
    req.header('transfer-encoding') === undefined && Number(req.header('content-length') ?? 0) === 0
  if (type === undefined && isEmpty) return {}
  if (!JSON_TYPE.test(type ?? ''))
    throw new AppError('unsupported_media_type', 'Send the body as application/json')
  // A compressed body may expand to any size.
  const encoding = req.header('content-encoding')?.trim().toLowerCase() ?? ''
  if (!['', 'identity'].includes(encoding))
    throw new AppError(
      'unsupported_media_type',
      'Send the body as it is, without Content-Encoding',
      { headers: { 'Accept-Encoding': 'identity' } },
    )
  try {
    return JSON.parse(UTF_8.decode(await req.arrayBuffer()))
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    const isEncoding = code === 'ERR_ENCODING_INVALID_ENCODED_DATA'
    const detail = isEncoding ? 'The body is not UTF-8' : 'Malformed JSON in the request body'
    throw new AppError('bad_request', detail, { cause })
  }
}

/** Splits zod's one issue for all unknown keys into one per key. */
const toIssues = (part: string, { issues }: ZodError): Issue[] =>
  issues.flatMap((issue) => {
    const keys = issue.code === 'unrecognized_keys' ? issue.keys : [undefined]
    return keys.map((key) => ({
      path: [part, ...issue.path, ...(key === undefined ? [] : [key])].join('.'),
      message: issue.message,
    }))
  })
