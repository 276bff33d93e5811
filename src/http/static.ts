import { readdirSync, readFileSync } from 'node:fs'
import { extname } from 'node:path'
import type { Hono } from 'hono'
import { type AppContext, type Env, getContext } from './context.ts'
import { bodyTag, isFresh } from './etag.ts'
import { withAccess } from './router.ts'

const PUBLIC = new URL('../../public/', import.meta.url)

/** Served as shipped: there is no build step. */
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

/** Allows nothing inline or from other servers. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; " +
  "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

/** Serves `public/`, with a route per file: no path of a request reaches the file system. */
export function servePage(app: Hono<Env>): void {
  const files = pageFiles()
  for (const [path, file] of files) {
    const body = path === '/' ? linkPanels(readFileSync(file, 'utf8'), files) : readFileSync(file)
    const tag = bodyTag(body)
    // In lower case, to override the API's policy.
    const headers = { 'content-security-policy': POLICY, 'Cache-Control': 'no-cache', ETag: tag }
    const type = TYPES[extname(file.pathname)] as string
    // Anybody may see the page, and what it shows takes a scope.
    const respond = (c: AppContext) => {
      getContext(c).isBackground = true
      return isFresh(c.req.header('if-none-match'), tag)
        ? c.body(null, 304, headers)
        : c.body(body, 200, { ...headers, 'Content-Type': type })
    }
    app.get(path, withAccess('public', respond))
  }
}

/** The page finds its panels by these links. */
function linkPanels(html: string, files: [path: string, file: URL][]) {
  const paths = files.map(([path]) => path).filter((path) => /^\/panels\/[^/]+$/.test(path))
  const links = paths.map((path) =>
    path.endsWith('.css')
      ? `<link rel="stylesheet" href="${path}">`
      : `<link rel="modulepreload" href="${path}">`,
  )
  return Buffer.from(html.replace(/<!-- panels: .*-->/, links.join('\n    ')))
}

function pageFiles(): [path: string, file: URL][] {
  const names = readdirSync(PUBLIC, { recursive: true, encoding: 'utf8' })
  const own = names
    .filter((name) => extname(name) in TYPES)
    .map((name): [string, URL] => [name === 'index.html' ? '/' : `/${name}`, new URL(name, PUBLIC)])
  return [...own, ...Object.entries(LIBRARIES)]
}
