import type { RouteConfig } from '@hono/zod-openapi'
import type { Handler, ValidationTargets } from 'hono'
import type { ZodError, z } from 'zod'
import { AppError, type Issue } from '../errors.ts'
import type { AppContext, Env } from './context.ts'

type Request = NonNullable<RouteConfig['request']>

/** A part of a request that is validated. */
interface Part {
  /** What Hono calls it: `c.req.valid('param')`. */
  target: keyof ValidationTargets
  /** What clients call it. */
  name: string
  schema: unknown
  read: (c: AppContext, body: unknown) => unknown
}

const JSON_TYPE = /^application\/([\w.-]+\+)?json$/i
/** A body of any other type, `text/csv` say, is its handler's to read. */
const OTHER_STRUCTURED_TYPE = /form|json/i
/**
 * Refuses other bytes, which `req.json()` replaces by U+FFFD: different texts would become equal.
 */
const UTF_8 = new TextDecoder('utf-8', { fatal: true })

/**
 * Makes a handler that gets only requests that fit their route, and finds what they hold in
 * `c.req.valid()`: the query, the path's parameters, headers (by their names in lower case) and a
 * body of JSON. It throws what the others are told: AppError `unsupported_media_type`;
 * `bad_request` for malformed JSON; `invalid`, which names every path.
 *
 * Instead of @hono/zod-openapi's validators, of which each is a middleware that parses
 * asynchronously: zod compiles what it checks only for `safeParse`.
 * docs/decisions/003-http-fast-path.md has figures.
 *
 * @throws Error for what is not validated here: cookies, forms and JSON by another name.
 */
export function validated(
  { query, params, headers, body, ...others }: Request,
  handler: Handler<Env>,
): Handler<Env> {
  const { 'application/json': json, ...otherTypes } = (body?.content ?? {}) as Record<
    string,
    { schema: unknown }
  >
  const unknown = [
    ...Object.keys(others),
    ...Object.keys(otherTypes).filter((type) => OTHER_STRUCTURED_TYPE.test(type)),
  ]
  if (unknown.length > 0)
    throw new Error(`Nothing validates ${unknown.join(', ')}: see src/http/validation.ts`)
  const all: Part[] = [
    { target: 'query', name: 'query', schema: query, read: queryOf },
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
  if (errors.length > 0)
    throw new AppError('invalid', `The request does not fit: ${pathsOf(errors).join(', ')}`, {
      errors,
    })
}

/** A list for a name that comes more than once, which no schema takes for a string. */
function queryOf(c: AppContext): Record<string, string | string[] | undefined> {
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
    const isOtherEncoding =
      (cause as NodeJS.ErrnoException).code === 'ERR_ENCODING_INVALID_ENCODED_DATA'
    throw new AppError(
      'bad_request',
      isOtherEncoding ? 'The body is not UTF-8' : 'Malformed JSON in the request body',
      { cause },
    )
  }
}

/**
 * @throws AppError `unsupported_media_type` for a body that is compressed: it may unpack to any
 * size.
 */
function assertIdentity(encoding = '') {
  if (['', 'identity'].includes(encoding.trim().toLowerCase())) return
  const headers = { 'Accept-Encoding': 'identity' }
  throw new AppError('unsupported_media_type', 'Send the body as it is, without Content-Encoding', {
    headers,
  })
}

const pathsOf = (issues: Issue[]) => [...new Set(issues.map(({ path }) => path))]

const toIssues = (part: string, { issues }: ZodError): Issue[] =>
  issues.flatMap((issue) =>
    keysOf(issue).map((key) => ({
      path: [part, ...issue.path, ...key].join('.'),
      message: issue.message,
    })),
  )

/**
 * An object's unknown keys come as one issue of the object: each of them gets a path of its own.
 */
const keysOf = (issue: z.core.$ZodIssue): string[][] =>
  issue.code === 'unrecognized_keys' ? issue.keys.map((key) => [key]) : [[]]
