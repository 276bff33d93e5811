import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { HttpServer } from '../../src/http/server.ts'
import { openApp } from '../support/app.ts'
import { sendRaw } from '../support/raw-http.ts'

const PANELS = readdirSync(join(import.meta.dirname, '../../public/panels'), {
  withFileTypes: true,
})
  .filter((entry) => entry.isFile())
  .map(({ name }) => name)
const SCRIPTS = PANELS.filter((name) => name.endsWith('.js'))

let app: Awaited<ReturnType<typeof openApp>>['app']

beforeAll(async () => {
  const opened = await openApp()
  app = opened.app
  return opened.close
})

describe('the page', () => {
  test.each([
    ['/', 'text/html; charset=UTF-8'],
    ['/page.js', 'text/javascript; charset=UTF-8'],
    ['/style.css', 'text/css; charset=UTF-8'],
    ['/vendor/uplot.js', 'text/javascript; charset=UTF-8'],
    ['/vendor/uplot.css', 'text/css; charset=UTF-8'],
    ['/vendor/socket.io.js', 'text/javascript; charset=UTF-8'],
    ...SCRIPTS.map((name) => [`/panels/${name}`, 'text/javascript; charset=UTF-8']),
  ])('serves %s as %s, and 304 to clients that have it', async (path, type) => {
    const first = await app.request(path)
    expect([first.status, first.headers.get('content-type')]).toEqual([200, type])
    expect(first.headers.get('cache-control')).toBe('no-cache')
    expect((await first.text()).length).toBeGreaterThan(100)
    const tag = first.headers.get('etag') ?? ''
    const again = await app.request(path, { headers: { 'if-none-match': tag } })
    expect([again.status, again.headers.get('etag'), await again.text()]).toEqual([304, tag, ''])
    const head = await app.request(path, { method: 'HEAD' })
    expect([head.status, head.headers.get('etag')]).toEqual([200, tag])
  })

  test('has one policy, which lets nothing run but its own files', async () => {
    const policy = (await app.request('/')).headers.get('content-security-policy') ?? ''
    expect(policy).toMatch(/^default-src 'none'; script-src 'self'; style-src 'self';/)
    expect(policy).not.toMatch(/unsafe|https?:|\*/)
  })

  test('has nothing inline, and loads nothing from anywhere else', async () => {
    const html = await (await app.request('/')).text()
    expect(html).not.toMatch(/<style|style=|<script(?![^>]* src="\/)|\son\w+=/)
    expect(html).not.toMatch(/(src|href)="(https?:)?\/\//)
  })

  test('has a link to each file in public/panels, by which it finds its panels', async () => {
    const html = await (await app.request('/')).text()
    const links = [...html.matchAll(/<link rel="(.*?)" href="\/panels\/(.*?)">/g)]
    const expected = PANELS.map((name) =>
      name.endsWith('.css') ? `stylesheet ${name}` : `modulepreload ${name}`,
    )
    expect(links.map(([, rel, name]) => `${rel} ${name}`).toSorted()).toEqual(expected.toSorted())
  })

  test.each([
    '/panels',
    '/panels/',
    '/panels/nothing.js',
    '/vendor/',
    '/index.html',
    '/page.js/',
    '/PAGE.JS',
  ])('is not at %s', async (path) => {
    const response = await app.request(path)
    expect([response.status, response.headers.get('content-type')]).toEqual([
      404,
      'application/problem+json',
    ])
  })

  test.each([
    '/../package.json',
    '/panels/../../package.json',
    '/panels/..%2f..%2fpackage.json',
    '/%2e%2e/package.json',
    '/vendor/../../package.json',
    '//etc/passwd',
    '/panels/..\\..\\package.json',
  ])('is not left by %s', async (path) => {
    const server = new HttpServer({ leaving: new AbortController().signal })
    onTestFinished(() => server[Symbol.asyncDispose]())
    const { status, text } = await sendRaw(
      await server.listen(app, '127.0.0.1', 0),
      `GET ${path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n`,
    )
    expect([400, 404]).toContain(status)
    expect(text).not.toMatch(/"dependencies"|root:/)
  })
})
