import { once } from 'node:events'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Feature } from '../../src/feature.ts'
import { openApp } from '../support/app.ts'
import { fixtureFeatures, startFixture, useFixture } from '../support/fixture/features.ts'
import { connectTo, sendRaw } from '../support/raw-http.ts'
import { request } from '../support/service.ts'

const MIB = 1024 * 1024

let service: Awaited<ReturnType<typeof startFixture>>
let items: string
let app: Awaited<ReturnType<typeof openApp>>

beforeAll(async () => {
  service = await startFixture({ CORS_ORIGINS: 'https://shop.example' })
  items = `${service.url}/v1/items`
  app = await openApp({}, fixtureFeatures)
})
afterAll(() => Promise.all([service.close(), app.close()]))

async function post(body: string | Blob, headers: Record<string, string>) {
  const response = await fetch(items, { method: 'POST', body, headers })
  const { code } = (await response.json()) as { code: string }
  return [response.status, code]
}

const json = { 'content-type': 'application/json' }

describe('every error is a problem', () => {
  test('for people and programs, with the request id', async () => {
    const { status, headers, body } = await request(`${service.url}/nowhere`)
    expect(status).toBe(404)
    expect(headers.get('content-type')).toBe('application/problem+json')
    expect(body).toEqual({
      type: 'about:blank',
      title: 'Not Found',
      status: 404,
      detail: 'There is nothing at /nowhere',
      instance: '/nowhere',
      code: 'not_found',
      requestId: headers.get('x-request-id'),
    })
  })

  test.each([
    ['PUT', '/v1/items', 'GET, HEAD, POST, OPTIONS'],
    ['POST', '/v1/items/1', 'GET, HEAD, PATCH, DELETE, OPTIONS'],
    ['DELETE', '/openapi.json', 'GET, HEAD, OPTIONS'],
    ['PATCH', '/', 'GET, HEAD, OPTIONS'],
  ])('%s %s is a wrong method: 405 with the right ones', async (method, path, allow) => {
    const { status, headers, body } = await app.request(path, method)
    expect([status, headers.get('allow'), body.code]).toEqual([405, allow, 'method_not_allowed'])
  })

  test('OPTIONS names the methods of a path', async () => {
    const { status, headers } = await app.request('/v1/items', 'OPTIONS')
    expect([status, headers.get('allow')]).toEqual([204, 'GET, HEAD, POST, OPTIONS'])
  })

  test.each([
    ['text/plain', '{}'],
    ['application/x-www-form-urlencoded', 'name=x'],
    ['multipart/form-data; boundary=x', '--x--'],
    ['text/html', '<p>'],
  ])('a body of %s is 415', async (type, body) => {
    expect(await post(body, { 'content-type': type })).toEqual([415, 'unsupported_media_type'])
  })

  test('a body without a content type is 415', async () => {
    expect(await post(new Blob(['{}']), {})).toEqual([415, 'unsupported_media_type'])
  })

  test.each(['{', '{"name":}', 'null,', ''])('malformed JSON %j is 400', async (body) => {
    expect(await post(body, json)).toEqual([400, 'bad_request'])
  })

  test.each([
    ['Latin-1', Buffer.from('{"name":"Caf\u00e9"}', 'latin1')],
    ['UTF-16', Buffer.from('{"name":"Lamp"}', 'utf16le')],
    ['UTF-8 that is cut', Buffer.from('{"name":"Caf\u00e9"}').subarray(0, 13)],
  ])('JSON in %s is 400, and stored with no other letters', async (_, bytes) => {
    expect(await post(new Blob([bytes]), json)).toEqual([400, 'bad_request'])
  })

  test.each(['null', '[]', '7', '"text"', '{"__proto__":{"stock":1}}'])(
    'JSON of another shape, %s, is 422',
    async (body) => {
      expect(await post(body, json)).toEqual([422, 'invalid'])
    },
  )

  test('a 422 names what is invalid in every part of the request', async () => {
    const { status, body } = await app.request('/v1/items/0', 'PATCH', {
      stock: -1,
      colour: 'red',
    })
    expect(status).toBe(422)
    expect(body.errors.map(({ path }: { path: string }) => path)).toEqual([
      'path.id',
      'body.stock',
      'body.colour',
    ])
  })

  test('an absent body lacks every field', async () => {
    const { status, body } = await app.request('/v1/items', 'POST')
    expect(status).toBe(422)
    expect(body.errors.map(({ path }: { path: string }) => path)).toEqual([
      'body.name',
      'body.price',
      'body.stock',
    ])
  })

  test('an internal failure is a 500 without details', async () => {
    await app.database.withSignal().schema.alterTable('item').renameTo('hidden').execute()
    const { status, body } = await app
      .request('/v1/items/1')
      .finally(() =>
        app.database.withSignal().schema.alterTable('hidden').renameTo('item').execute(),
      )
    expect([status, body.code, body.detail]).toEqual([
      500,
      'internal',
      'Something went wrong on our side',
    ])
    expect(JSON.stringify(body)).not.toMatch(/select|table|stack/i)
  })
})

describe('a body', () => {
  test('over 1 MiB is rejected at once where its length is declared', async () => {
    const socket = await connectTo(service.url)
    socket.write(
      `POST /v1/items HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${MIB + 1}\r\n\r\n{`,
    )
    const [answer] = await once(socket, 'data')
    expect(String(answer)).toMatch(/^HTTP\/1.1 413 /)
    expect(String(answer)).toContain('"code":"too_large"')
    socket.destroy()
  })

  test('over 1 MiB is rejected while it arrives where its length is not declared', async () => {
    const socket = await connectTo(service.url)
    socket.write(
      'POST /v1/items HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n',
    )
    const chunk = `10000\r\n${'x'.repeat(0x10000)}\r\n`
    for (let sent = 0; sent <= MIB; sent += 0x10000) socket.write(chunk)
    // The last chunk, of length 0, is never sent: the answer comes before the body's end.
    const [answer] = await once(socket, 'data')
    expect(String(answer)).toMatch(/^HTTP\/1.1 413 /)
    socket.destroy()
  })

  test('that stops arriving is not awaited beyond the deadline', async () => {
    const { url } = await useFixture({ REQUEST_TIMEOUT_MS: '200' })
    const socket = await connectTo(url)
    socket.write(
      'POST /v1/items HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"name":',
    )
    const [answer] = await once(socket, 'data')
    expect(String(answer)).toMatch(/^HTTP\/1.1 504 /)
    socket.destroy()
  })

  test('of just 1 MiB is read', async () => {
    const body = `{"name":"${'x'.repeat(MIB - 11)}"}`
    expect(body.length).toBe(MIB)
    expect(await post(body, json)).toEqual([422, 'invalid'])
  })
})

describe('requests that a proxy could interpret differently', () => {
  test.each([
    ['two Host headers', 'GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n', 400],
    ['no Host header', 'GET / HTTP/1.1\r\nConnection: close\r\n\r\n', 400],
    ['a malformed Host', 'GET / HTTP/1.1\r\nHost: a b/c\r\nConnection: close\r\n\r\n', 400],
    [
      'an absolute URL as target',
      'GET http://internal/health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n',
      400,
    ],
    [
      'Content-Length and Transfer-Encoding',
      'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
      400,
    ],
    ['a header with a bare newline in it', 'GET / HTTP/1.1\r\nHost: a\r\nX: a\nb\r\n\r\n', 400],
    ['no HTTP at all', 'hello\r\n\r\n', 400],
    ['20 KB of headers', `GET / HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`, 431],
  ])('%s: rejected', async (_, bytes, status) => {
    expect((await sendRaw(service.url, bytes)).status).toBe(status)
  })

  test('are answered with the reason, as a problem', async () => {
    const { head, body } = await sendRaw(
      service.url,
      'GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n',
    )
    expect(head.toLowerCase()).toContain('content-type: application/problem+json')
    expect(JSON.parse(body)).toMatchObject({
      status: 400,
      code: 'bad_request',
      detail: 'Send one Host header',
    })
  })

  test('do not block others', async () => {
    const socket = await connectTo(service.url)
    socket.write('GET /v1/items HTTP/1.1\r\nHos')
    expect((await request(items)).status).toBe(200)
    socket.destroy()
  })
})

describe('the request id', () => {
  test("is the caller's where it is safe to log", async () => {
    const { headers } = await request(items, 'GET', undefined, {
      'x-request-id': 'trace-1:a.b_c',
    })
    expect(headers.get('x-request-id')).toBe('trace-1:a.b_c')
  })

  test.each(['two words', 'x'.repeat(129), '<script>'])(
    'is a new one instead of %j',
    async (id) => {
      const { headers } = await request(items, 'GET', undefined, { 'x-request-id': id })
      expect(headers.get('x-request-id')).toMatch(/^[\w-]{12}\.[0-9a-z]+$/)
    },
  )

  test('differs between requests on one connection', async () => {
    const get = 'GET /v1/items HTTP/1.1\r\nHost: a\r\n'
    const { text } = await sendRaw(service.url, `${get}\r\n${get}Connection: close\r\n\r\n`)
    const ids = text.match(/(?<=^x-request-id: ).*$/gm)
    expect([ids?.length, new Set(ids).size]).toEqual([2, 2])
  })
})

describe('headers', () => {
  test.each(['/v1/items', '/nowhere', '/openapi.json'])(
    '%s has the security headers',
    async (path) => {
      const { headers } = await request(service.url + path)
      expect(Object.fromEntries(headers)).toMatchObject({
        'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
        'x-content-type-options': 'nosniff',
        'x-frame-options': 'DENY',
        'referrer-policy': 'no-referrer',
        'cross-origin-resource-policy': 'same-origin',
      })
      expect(headers.has('strict-transport-security')).toBe(false)
    },
  )

  test('browsers are told to stay with TLS where the service is behind it', async () => {
    const { url } = await useFixture({ BEHIND_TLS: 'true' })
    const { headers } = await request(`${url}/nowhere`)
    expect(headers.get('strict-transport-security')).toMatch(/^max-age=/)
  })

  test('HEAD gives those of GET and no body', async () => {
    const [get, head] = [await fetch(items), await fetch(items, { method: 'HEAD' })]
    expect([head.status, await head.text(), head.headers.get('etag')]).toEqual([
      200,
      '',
      get.headers.get('etag'),
    ])
  })

  test('admit pages of listed origins, and no others', async () => {
    const allowed = await request(items, 'GET', undefined, { origin: 'https://shop.example' })
    expect(allowed.headers.get('access-control-allow-origin')).toBe('https://shop.example')
    const other = await request(items, 'GET', undefined, { origin: 'https://evil.example' })
    expect(other.headers.get('access-control-allow-origin')).toBeNull()
  })

  test('answer the preflight of a listed origin', async () => {
    const { status, headers } = await request(`${items}/1`, 'OPTIONS', undefined, {
      origin: 'https://shop.example',
      'access-control-request-method': 'PATCH',
      'access-control-request-headers': 'content-type,if-match',
    })
    expect([status, headers.get('access-control-allow-origin')]).toEqual([
      204,
      'https://shop.example',
    ])
    expect(headers.get('access-control-allow-methods')).toContain('PATCH')
  })

  test.each([
    ['without an origin', {}],
    ['that names no method', { origin: 'https://shop.example' }],
    ['without an origin that names a method', { 'access-control-request-method': 'PATCH' }],
  ])(
    'leave OPTIONS %s, which is no preflight, to the app',
    async (_, headers: Record<string, string>) => {
      const known = await request(`${items}/1`, 'OPTIONS', undefined, headers)
      expect([known.status, known.headers.get('allow')]).toEqual([
        204,
        'GET, HEAD, PATCH, DELETE, OPTIONS',
      ])
      expect((await request(`${service.url}/nowhere`, 'OPTIONS', undefined, headers)).status).toBe(
        404,
      )
    },
  )
})

describe('operations', () => {
  test.each(['/health/live', '/health/ready', '/metrics'])(
    '%s is on the ops port alone',
    async (path) => {
      expect((await app.request(path)).status).toBe(404)
      expect((await fetch(service.opsUrl + path)).status).toBe(200)
    },
  )

  test('the page links to the docs and the OpenAPI document', async () => {
    const html = await (await app.fetch('/')).text()
    for (const link of ['/docs', '/openapi.json']) expect(html).toContain(`href="${link}"`)
  })

  test('the OpenAPI document describes what the routes validate', async () => {
    const { body } = await app.request('/openapi.json')
    expect(body.openapi).toBe('3.1.0')
    expect(Object.keys(body.paths).sort()).toEqual([
      '/v1/accounts',
      '/v1/accounts/me',
      '/v1/accounts/me/password',
      '/v1/items',
      '/v1/items/{id}',
      '/v1/keys',
      '/v1/keys/{id}',
      '/v1/ops',
      '/v1/ops/heap',
      '/v1/ops/heap-snapshot',
      '/v1/ops/processes',
      '/v1/ops/profiles',
      '/v1/ops/profiles/current',
      '/v1/ops/requests',
      '/v1/ops/spans',
      '/v1/sessions',
      '/v1/sessions/{id}',
      '/v1/work',
    ])
    expect(body.paths['/v1/items/{id}'].get.responses[404].content).toHaveProperty([
      'application/problem+json',
    ])
    expect(body.components.schemas.Problem.properties.code.enum).toContain('overloaded')
    expect(body.components.schemas.ItemInput).toMatchObject({
      required: ['name', 'price', 'stock'],
      additionalProperties: false,
      properties: { name: { maxLength: 200 }, stock: { minimum: 0 } },
    })
  })

  test('the docs list every event with its topic and each field of its payload', async () => {
    const { description } = (await app.request('/openapi.json')).body.info
    for (const { name, topic, payload } of fixtureFeatures.flatMap(
      (feature: Feature) => feature.events ?? [],
    )) {
      const section = description.split('### ').find((text: string) => text.startsWith(`${name}\n`))
      expect(section).toContain(`\`${topic}\``)
      for (const field of Object.keys(payload.shape))
        expect(section).toMatch(new RegExp(`- \`${field}\`: (?!undefined)`))
    }
    expect(description).toContain('`server.stopping`')
    expect(description).toContain('`server.resync`')
  })

  test('the docs load nothing from anywhere else', async () => {
    const page = await app.fetch('/docs')
    const html = await page.text()
    expect(html).not.toMatch(/(src|href)="?https?:/)
    expect(html).toContain('src="/docs/scalar.js"')
    expect(page.headers.get('content-security-policy')).toMatch(
      /default-src 'self'; script-src 'self' 'nonce-/,
    )
    const script = await app.fetch('/docs/scalar.js')
    expect([script.status, script.headers.get('content-type')]).toEqual([
      200,
      'text/javascript; charset=UTF-8',
    ])
    expect((await script.text()).length).toBeGreaterThan(MIB)
  })
})
