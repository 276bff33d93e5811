import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { Scalar } from '@scalar/hono-api-reference'
import type { Handler } from 'hono'
import type { Event } from '../realtime/event.ts'
import type { Access } from '../roles.ts'
import type { Env } from './context.ts'
import { Problem } from './errors.ts'
import { bodyTag, isFresh } from './etag.ts'
import { type Router, withAccess } from './router.ts'

const DESCRIPTION = `An async backend whose event loop stays free.
Every error is \`application/problem+json\` (RFC 9457).
Malformed HTTP gets 400, 408, 413 or 431 before it reaches an operation.

## Push over Socket.IO

Connect with a Socket.IO client, \`websocket\` transport only, to the default namespace. Subscribe
by \`socket.emit('subscribe', topic, answer => …)\`, and end it by \`'unsubscribe'\` likewise;
the answer is \`{ ok: true }\` or \`{ ok: false, code, message }\`.

An event is a hint, sent after the commit: read the state by HTTP, and read it again after each
reconnection and upon \`server.resync\`, which says that events may have been missed. All clients
receive \`server.stopping\` before the server stops.
`

/** The colours have more contrast than Scalar's. */
const DOCS = {
  url: '/openapi.json',
  cdn: '/docs/scalar.js',
  pageTitle: 'offloop API',
  favicon: 'data:,',
  theme: 'default',
  telemetry: false,
  agent: { disabled: true },
  mcp: { disabled: true },
  showDeveloperTools: 'never',
  hideClientButton: true,
  withDefaultFonts: false,
  customCss: `
    a[href*='scalar.com'] { display: none }
    .light-mode {
      --scalar-color-3: #666;
      --scalar-color-green: #00704a;
      --scalar-color-orange: #a84300;
      --scalar-color-red: #c00;
      --scalar-color-yellow: #7d5a00;
    }
    .dark-mode { --scalar-color-3: #999; --scalar-color-red: #ff6b6b }`,
} as const

type Document = ReturnType<Router['getOpenAPI31Document']>
type Operation = NonNullable<NonNullable<Document['paths']>[string]['get']>
type Responses = Record<string, { description: string; content?: object; headers?: object }>

export function serveDocs(app: Router, events: readonly Event[], access: Access): void {
  let document: string | undefined
  const serve = (path: string, handler: Handler<Env>) => app.get(path, withAccess(access, handler))
  serve('/openapi.json', (c) => {
    document ??= JSON.stringify(describeApi(app, events))
    return c.body(document, 200, { 'Content-Type': 'application/json' })
  })

  serve('/docs', async (c, next) => {
    const nonce = randomBytes(16).toString('base64')
    c.header('Content-Security-Policy', docsPolicy(nonce))
    const page = (await Scalar<Env>({ ...DOCS, nonce })(c, next)) as Response
    return c.html((await page.text()).replace('<html>', '<html lang="en">'))
  })

  let loading: Promise<Buffer<ArrayBuffer>> | undefined
  serve('/docs/scalar.js', async (c) => {
    loading ??= loadScript().catch((error) => {
      loading = undefined
      throw error
    })
    const script = await loading
    const headers = { 'Cache-Control': 'no-cache', ETag: bodyTag(script) }
    return isFresh(c.req.header('if-none-match'), headers.ETag)
      ? c.body(null, 304, headers)
      : c.body(script, 200, { ...headers, 'Content-Type': 'text/javascript; charset=UTF-8' })
  })
}

/** From node_modules, so that `/docs` works offline (docs/decisions/004). */
async function loadScript(): Promise<Buffer<ArrayBuffer>> {
  const [text] = await once(new Worker(new URL('./scalar-thread.ts', import.meta.url)), 'message')
  if (typeof text !== 'string')
    throw new Error('Expected a script in @scalar/fastify-api-reference, found none')
  return Buffer.from(text)
}

/** Scalar's page has inline scripts and styles. */
const docsPolicy = (nonce: string) =>
  `default-src 'self'; script-src 'self' 'nonce-${nonce}'; style-src 'self' 'unsafe-inline'; ` +
  "img-src 'self' data: blob:; font-src 'self' data:; frame-ancestors 'none'; base-uri 'none'"

/** Adds what routes imply but do not declare. */
function describeApi(app: Router, events: readonly Event[]) {
  const { openAPIRegistry: registry } = app
  registry.register('Problem', Problem)
  registry.registerComponent('securitySchemes', 'session', {
    type: 'apiKey',
    in: 'cookie',
    name: 'session',
    description: 'Of a browser that signed in; `__Host-session` behind TLS',
  })
  registry.registerComponent('securitySchemes', 'apiKey', {
    type: 'http',
    scheme: 'bearer',
    description: 'An API key, from `POST /v1/keys`',
  })
  const document = app.getOpenAPI31Document({
    openapi: '3.1.0',
    info: {
      title: 'offloop',
      version: 'v1',
      description: [DESCRIPTION, ...events.map(describeEvent)].join('\n'),
    },
    // Right on every port and behind a proxy.
    servers: [{ url: '/' }],
  })
  for (const [path, operations] of Object.entries(document.paths ?? {}))
    for (const [method, operation] of Object.entries(operations as Record<string, Operation>))
      complete(path, method, operation)
  return document
}

const describeEvent = ({ name, topic, when, payload }: Event) => `### ${name}

To the topic \`${topic}\`. ${when}

${Object.entries(payload.shape)
  .map(([field, { description }]) => `- \`${field}\`: ${description}`)
  .join('\n')}
`

const header = (description: string, required = true) => ({
  description,
  required,
  schema: { type: 'string' },
})

function complete(path: string, method: string, operation: Operation) {
  const [, feature = 'operations'] = path.match(/^\/v1\/(?!ops\b)([\w-]+)/) ?? []
  operation.tags ??= [feature]
  const responses: Responses = {
    ...impliedResponses(path, method, operation),
    ...(operation.responses as Responses),
  }
  for (const [status, response] of Object.entries(responses)) {
    if (Number(status) >= 400)
      response.content ??= {
        'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } },
      }
    response.headers = {
      'X-Request-Id': header("The request's id in logs and jobs; the caller's own, if it sent one"),
      ...(status === '429' && {
        RateLimit: header('What is left of the limit, and when it resets'),
        'RateLimit-Policy': header('The limit, and its time in seconds'),
      }),
      ...(['429', '503'].includes(status) && {
        'Retry-After': header('Seconds to wait before a retry', false),
      }),
      ...response.headers,
    }
  }
  operation.responses = responses as NonNullable<Operation['responses']>
}

function impliedResponses(
  path: string,
  method: string,
  { parameters = [], requestBody, security = [] }: Operation,
): Responses {
  const names = parameters.map((parameter) => ('name' in parameter ? parameter.name : ''))
  return {
    401: { description: 'Nobody is signed in, or the API key is unknown, revoked or expired' },
    ...((security.length > 0 || method !== 'get') && {
      403: { description: 'A scope is missing, or another site sent the request' },
    }),
    ...(requestBody && {
      400: { description: 'The body is malformed' },
      413: { description: 'The body is too large' },
      415: { description: 'The body has another media type, or is compressed' },
    }),
    ...(path.includes('{') && { 404: { description: 'Nothing has this id' } }),
    ...(names.includes('if-match') && {
      412: { description: 'The current version is not the one in `If-Match`' },
    }),
    ...((requestBody || names.length > 0) && {
      422: { description: 'Validation failed: `errors` names each place and reason' },
    }),
    429: { description: 'The caller has used up a limit' },
    500: { description: 'Something went wrong on our side' },
    503: { description: 'The service is overloaded, stopping, or without its database' },
    504: { description: 'The deadline of the request has passed' },
  }
}
