import { readdirSync, readFileSync } from 'node:fs'
import { extname } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Hono } from 'hono'
import type { Env } from './context.ts'
import { bodyTag, isFresh } from './etag.ts'

const PUBLIC = new URL('../../public/', import.meta.url)

/**
 * What the page uses of others, as their packages ship it: there is no build step, and nothing
 * comes from outside.
 */
const LIBRARIES = {
  '/vendor/uplot.js': new URL('../../node_modules/uplot/dist/uPlot.esm.js', import.meta.url),
  '/vendor/uplot.css': new URL('../../node_modules/uplot/dist/uPlot.min.css', import.meta.url),
  '/vendor/socket.io.js': new URL(
    '../../node_modules/socket.io-client/dist/socket.io.esm.min.js',
    import.meta.url,
  ),
}

const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=UTF-8',
  '.js': 'text/javascript; charset=UTF-8',
  '.css': 'text/css; charset=UTF-8',
}

/** Scripts, styles and pictures from this server only, and none of them within the page itself. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

/**
 * The live page: `public/index.html` at `/`, and what it loads. The files are few, so they are read
 * once, and each is a route of its own: there is no path that a request could make up.
 */
export function servePage(app: Hono<Env>): void {
  for (const [path, file] of pageFiles()) {
    const body = readFileSync(file)
    const tag = bodyTag(body)
    // In lower case, to take the place of the policy that every answer has.
    const headers = { 'content-security-policy': POLICY, 'Cache-Control': 'no-cache', ETag: tag }
    const type = TYPES[extname(file.pathname)] as string
    app.get(path, (c) =>
      isFresh(c.req.header('if-none-match'), tag)
        ? new Response(null, { status: 304, headers })
        : new Response(body, { headers: { ...headers, 'Content-Type': type } }),
    )
  }
}

function pageFiles(): [path: string, file: URL][] {
  const names = readdirSync(fileURLToPath(PUBLIC), { recursive: true, encoding: 'utf8' }).filter(
    (name) => extname(name) in TYPES,
  )
  const own = names.map((name): [string, URL] => [
    name === 'index.html' ? '/' : `/${name}`,
    new URL(name, PUBLIC),
  ])
  return [...own, ...Object.entries(LIBRARIES)]
}
