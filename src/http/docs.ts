import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { Scalar } from '@scalar/hono-api-reference'
import type { Event } from '../realtime/event.ts'
import type { Env } from './context.ts'
import { bodyTag, isFresh } from './etag.ts'
import { describeApi } from './openapi.ts'
import type { Router } from './router.ts'

/** Hides the link to Scalar's site. */
const STYLES = '.darklight-reference a { display: none }'

/**
 * `/openapi.json`, generated from the schemas that validate, and `/docs`, a page to read and try
 * it.
 *
 * @param events what is pushed: OpenAPI has no place for it but its introduction.
 */
export function serveDocs(app: Router, events: readonly Event[]): void {
  let document: string | undefined
  app.get('/openapi.json', (c) => {
    document ??= JSON.stringify(describeApi(app, events))
    return c.body(document, 200, { 'Content-Type': 'application/json' })
  })

  app.get('/docs', (c, next) => {
    const nonce = randomBytes(16).toString('base64')
    c.header('Content-Security-Policy', docsPolicy(nonce))
    return Scalar<Env>({
      url: '/openapi.json',
      cdn: '/docs/scalar.js',
      nonce,
      pageTitle: 'offloop API',
      favicon: 'data:,',
      // Nothing that leads to a service of Scalar's.
      telemetry: false,
      agent: { disabled: true },
      mcp: { disabled: true },
      showDeveloperTools: 'never',
      hideClientButton: true,
      withDefaultFonts: false,
      customCss: STYLES,
    })(c, next)
  })

  let loading: Promise<Script> | undefined
  app.get('/docs/scalar.js', async (c) => {
    loading ??= loadScript().catch((error) => {
      loading = undefined
      throw error
    })
    const { script, tag } = await loading
    if (isFresh(c.req.header('if-none-match'), tag)) return c.body(null, 304, { ETag: tag })
    return c.body(script, 200, {
      'Content-Type': 'text/javascript; charset=UTF-8',
      'Cache-Control': 'no-cache',
      ETag: tag,
    })
  })
}

interface Script {
  script: Buffer<ArrayBuffer>
  tag: string
}

/** Scalar's script from `node_modules`, served by us so that `/docs` works without the internet. */
async function loadScript(): Promise<Script> {
  const [text] = await once(new Worker(new URL('./scalar-thread.ts', import.meta.url)), 'message')
  if (typeof text !== 'string')
    throw new Error('@scalar/fastify-api-reference has no script where it had one')
  const script = Buffer.from(text)
  return { script, tag: bodyTag(script) }
}

/** The page configures itself in an inline script, hence the nonce, and styles itself inline. */
const docsPolicy = (nonce: string) =>
  `default-src 'self'; script-src 'self' 'nonce-${nonce}'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; frame-ancestors 'none'; base-uri 'none'`
