import {
  type createRoute,
  OpenAPIHono,
  type RouteConfig,
  type RouteHandler,
} from '@hono/zod-openapi'
import type { Handler, Hono, TypedResponse, ValidationTargets } from 'hono'
import type { StatusCode } from 'hono/utils/http-status'
import type { JSONParsed } from 'hono/utils/types'
import { type ZodError, z } from 'zod'
import { AppError, type Issue } from '../errors.ts'
import type { AppContext, Env } from './context.ts'

type Route = ReturnType<typeof createRoute>

/** A router whose routes validate what they declare and appear in the OpenAPI document. */
export type Router = Hono<Env> &
  Pick<OpenAPIHono<Env>, 'openAPIRegistry' | 'getOpenAPI31Document'> & {
    openapi<R extends Route>(
      route: R,
      handler: (c: RouteContext<R>) => RouteResponse<R> | Promise<RouteResponse<R>>,
    ): Router
  }

/** The context of a route's handler: `c.req.valid('param')` has the type of its schema. */
type RouteContext<R extends RouteConfig> = Parameters<RouteHandler<R, Env>>[0]

/** What a route's handler may return: for each status a body as the route declares it. */
type RouteResponse<R extends RouteConfig> = {
  [Status in keyof R['responses'] & StatusCode]: R['responses'][Status] extends {
    content: infer Content
  }
    ? ContentResponse<Content, Status>
    : TypedResponse<null, Status, 'body'>
}[keyof R['responses'] & StatusCode]

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

/**
 * Instead of @hono/zod-openapi's own `openapi`, whose validators are slower (`validated` below) and
 * whose type lets any response pass as soon as one of a route's responses has no body.
 */
export function createRouter(): Router {
  const router = new OpenAPIHono<Env>()
  const openapi = (route: Route, handler: Handler<Env>): Router => {
    if (route.middleware || route.hide)
      throw new Error(`${route.path}: routes have no middleware and are not hidden`)
    router.openAPIRegistry.registerPath(route)
    router.on(route.method, route.getRoutingPath(), validated(route.request ?? {}, handler))
    return checked
  }
  const checked = Object.assign(router, { openapi })
  return checked
}

/** The JSON body of a request: `request: jsonBody(ProductInput)`. */
export const jsonBody = <Schema extends z.ZodType>(schema: Schema) => ({
  body: { required: true, content: { 'application/json': { schema } } },
})

/** A JSON response: `responses: { 200: json(Product, 'The product') }`. */
export const json = <Schema extends z.ZodType>(schema: Schema, description: string) => ({
  description,
  content: { 'application/json': { schema } },
})

/** A response with headers: `withHeaders(json(Product, 'Created'), 'ETag', 'Location')`. */
export const withHeaders = <Response extends object>(response: Response, ...names: string[]) => ({
  ...response,
  headers: z.object(Object.fromEntries(names.map((name) => [name, z.string()]))),
})

type Request = NonNullable<RouteConfig['request']>

/** A part of a request that is validated. */
interface Part {
  /** Hono's name for it: `c.req.valid('param')`. */
  target: keyof ValidationTargets
  /** The clients' name for it, in the paths of issues. */
  name: string
  schema: unknown
  read: (c: AppContext, body: unknown) => unknown
}

const JSON_TYPE = /^application\/([\w.-]+\+)?json$/i
/** Handlers read bodies of any other type themselves, such as `text/csv`. */
const OTHER_STRUCTURED_TYPE = /form|json/i
/** Refuses invalid bytes, which `req.json()` would replace by U+FFFD: different texts would become equal. */
const UTF_8 = new TextDecoder('utf-8', { fatal: true })

/**
 * Validates a request's query, path parameters, headers (by lower-case name) and JSON body before
 * its handler, which finds them in `c.req.valid()`. Throws AppError `unsupported_media_type`,
 * `bad_request` for malformed JSON, or `invalid` with the path of everything that is wrong.
 *
 * Faster than @hono/zod-openapi's validators, of which each is a middleware that parses
 * asynchronously: zod compiles its checks for `safeParse` only
 * (docs/decisions/003-http-fast-path.md).
 *
 * @throws Error for what is not validated here: cookies, forms and JSON by another name.
 */
function validated(
  { query, params, headers, body, ...others }: Request,
  handler: Handler<Env>,
): Handler<Env> {
  const { 'application/json': json, ...otherTypes } = (body?.content ?? {}) as Record<
    string,
    { schema: unknown }
  >
  const unsupported = [
    ...Object.keys(others),
    ...Object.keys(otherTypes).filter((type) => OTHER_STRUCTURED_TYPE.test(type)),
  ]
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

/** The error for input that breaks its schema. */
export function validationFailed(errors: Issue[]): AppError {
  const paths = [...new Set(errors.map(({ path }) => path))]
  return new AppError('invalid', `Validation failed: ${paths.join(', ')}`, { errors })
}

/** A name that comes more than once gets a list, which no schema takes for a string. */
function readQuery(c: AppContext): Record<string, string | string[] | undefined> {
  return Object.fromEntries(
    Object.entries(c.req.queries()).map(([name, values]) => [
      name,
      values.length === 1 ? values[0] : values,
    ]),
  )
}

async function readJson({ req }: AppContext): Promise<unknown> {
  const type = req.header('content-type')?.split(';')[0]?.trim()
  const isEmpty =
    req.header('transfer-encoding') === undefined && Number(req.header('content-length') ?? 0) === 0
  if (type === undefined && isEmpty) return {}
  if (!JSON_TYPE.test(type ?? ''))
    throw new AppError('unsupported_media_type', 'Send the body as application/json')
  assertIdentity(req.header('content-encoding'))
  try {
    return JSON.parse(UTF_8.decode(await req.arrayBuffer()))
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    const detail =
      code === 'ERR_ENCODING_INVALID_ENCODED_DATA'
        ? 'The body is not UTF-8'
        : 'Malformed JSON in the request body'
    throw new AppError('bad_request', detail, { cause })
  }
}

/** @throws AppError `unsupported_media_type` for a compressed body, which may unpack to any size. */
function assertIdentity(encoding = '') {
  if (['', 'identity'].includes(encoding.trim().toLowerCase())) return
  const headers = { 'Accept-Encoding': 'identity' }
  throw new AppError('unsupported_media_type', 'Send the body as it is, without Content-Encoding', {
    headers,
  })
}

const toIssues = (part: string, { issues }: ZodError): Issue[] =>
  issues.flatMap((issue) =>
    issueKeys(issue).map((key) => ({
      path: [part, ...issue.path, ...key].join('.'),
      message: issue.message,
    })),
  )

/** Unknown keys come as one issue of their object: each of them gets a path of its own. */
const issueKeys = (issue: z.core.$ZodIssue): string[][] =>
  issue.code === 'unrecognized_keys' ? issue.keys.map((key) => [key]) : [[]]
