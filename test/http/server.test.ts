import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { createConnection } from 'mysql2/promise'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { AppError, overloaded } from '../../src/errors.ts'
import { type RequestRecord, requestContext } from '../../src/http/context.ts'
import { errorHandler } from '../../src/http/errors.ts'
import { allowOrigins } from '../../src/http/headers.ts'
import { createRouter } from '../../src/http/router.ts'
import { type Backlog, HttpServer } from '../../src/http/server.ts'
import { openLog } from '../../src/log.ts'
import { startFixture, useFixture } from '../support/fixture/features.ts'
import { connectTo, sendRaw } from '../support/raw-http.ts'
import { metric, request } from '../support/service.ts'
import { until } from '../support/until.ts'

let service: Awaited<ReturnType<typeof startFixture>>

beforeAll(async () => {
  service = await startFixture({ CORS_ORIGINS: 'https://shop.example' })
})
afterAll(() => service.close())

const statusesIn = (text: string) =>
  [...text.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => Number(status))

describe('a request that waits in a backlog', () => {
  test('does not start before it is admitted, and others are served meanwhile', async () => {
    const { url, waiters, served } = await useBacklog()
    const answer = fetch(`${url}/slow`, { method: 'POST', body: 'as it was sent' })
    await until(() => waiters.length > 0, 'it waits')
    expect(await (await fetch(`${url}/other`)).text()).toBe('')
    expect(await (await fetch(`${url}/slow`, { method: 'OPTIONS' })).text()).toBe('')
    expect(served).toEqual(['GET /other', 'OPTIONS /slow'])
    waiters[0]?.admit()
    expect(await (await answer).text()).toBe('as it was sent')
  })

  test('is rejected with an answer that pages of other origins can read, on a connection that stays open', async () => {
    const { url, waiters, records, served } = await useBacklog()
    const socket = await connectTo(url)
    onTestFinished(() => void socket.destroy())
    for (const _ of ['first', 'second']) {
      socket.write('GET /slow HTTP/1.1\r\nHost: a\r\nOrigin: https://shop.example\r\n\r\n')
      await until(() => waiters.length > 0, 'it waits')
      waiters.pop()?.refuse(overloaded('The database is busy'))
      const answer = String((await once(socket, 'data'))[0])
      expect(statusesIn(answer)).toEqual([503])
      for (const part of [
        /"code":"overloaded"/,
        /retry-after: \d/i,
        /access-control-allow-origin: https:\/\/shop\.example/i,
      ])
        expect(answer).toMatch(part)
    }
    await until(() => records.length === 2, 'they are recorded')
    expect([records.map(({ status }) => status), served]).toEqual([[503, 503], []])
  })

  test('does not start when its client has left, and is recorded as 499', async () => {
    const { url, waiters, records, served, inFlight } = await useBacklog()
    const socket = await connectTo(url)
    socket.write('GET /slow HTTP/1.1\r\nHost: a\r\n\r\n')
    await until(() => waiters.length > 0, 'it waits')
    socket.destroy()
    await until(() => inFlight() === 0, 'the server has heard of it')
    waiters[0]?.admit()
    await until(() => records.length > 0, 'it is recorded')
    expect([records.map(({ status }) => status), served]).toEqual([[499], []])
  })

  test('is one that nobody refuses: a client over its limit does not wait among others', async () => {
    const findRefusal = () => new AppError('rate_limited', 'Too many requests')
    const { url, waiters, served } = await useBacklog({ findRefusal })
    const first = fetch(`${url}/slow`)
    await until(() => waiters.length > 0, 'it waits')
    expect((await fetch(`${url}/slow`)).status).toBe(429)
    expect([waiters.length, served]).toEqual([1, []])
    waiters[0]?.admit()
    expect((await first).status).toBe(200)
  })

  test('has a duration that counts from its arrival', async () => {
    const { url, waiters, records } = await useBacklog()
    const answer = fetch(`${url}/slow`)
    await until(() => waiters.length > 0, 'it waits')
    const since = performance.now()
    await until(() => performance.now() - since > 20, 'it has waited')
    waiters[0]?.admit()
    await answer
    await until(() => records.length > 0, 'it is recorded')
    expect(records[0]?.ms).toBeGreaterThan(20)
  })
})

test('requests that wait for the database are all answered in the end, and those that do not need it meanwhile', async () => {
  const { url, opsUrl, databaseUrl } = await useFixture({ DATABASE_POOL_SIZE: '2' })
  const other = await createConnection(databaseUrl)
  onTestFinished(() => other.end())
  await other.query('lock tables item write')
  const reads = Array.from({ length: 60 }, () => request(`${url}/v1/items`))
  const waiting = () => metric(opsUrl, 'database_pool_waiting')
  await until(async () => (await waiting()) > 50, 'they wait')
  expect((await request(`${url}/v1/work?ms=1`)).status).toBe(200)
  await other.query('unlock tables')
  // On a busy machine some may have waited for too long.
  for (const { status } of await Promise.all(reads)) expect([200, 503]).toContain(status)
  expect(await waiting()).toBe(0)
})

describe('an upgrade to another protocol', () => {
  test.each([
    [
      'h2c, as Java and curl --http2 make it',
      'Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n',
      '/v1/items',
    ],
    ['TLS', 'Upgrade: TLS/1.0\r\n', '/v1/items'],
    [
      'a websocket elsewhere',
      'Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n',
      '/v1/items',
    ],
    ['several', 'Upgrade: h2c, websocket\r\n', '/'],
  ])('%s is ignored, and the request served', async (_, headers, path) => {
    const { status } = await sendRaw(
      service.url,
      `GET ${path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings, close\r\n${headers}\r\n`,
    )
    expect(status).toBe(200)
  })

  test.each([
    ['at once', 0],
    ['later', 20],
  ])('with a body that comes %s is ignored, and the body read', async (when, pauseMs) => {
    const body = JSON.stringify({ name: `Lamp that comes ${when}`, price: '1.00', stock: 1 })
    const headers = `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n`
    const socket = await connectTo(service.url)
    onTestFinished(() => void socket.destroy())
    socket.write(
      `POST /v1/items HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n${headers}\r\n${pauseMs ? '' : body}`,
    )
    if (pauseMs) setTimeout(() => socket.write(body), pauseMs)
    const [answer] = await once(socket, 'data')
    expect(statusesIn(String(answer))).toEqual([201])
  })

  test('does not end the connection, on which the next request is served', async () => {
    const socket = await connectTo(service.url)
    onTestFinished(() => void socket.destroy())
    for (const headers of [
      'Connection: Upgrade\r\nUpgrade: h2c\r\n',
      '',
      'Connection: Upgrade\r\nUpgrade: websocket\r\n',
    ]) {
      socket.write(`HEAD / HTTP/1.1\r\nHost: a\r\n${headers}\r\n`)
      const [answer] = await once(socket, 'data')
      expect(statusesIn(String(answer))).toEqual([200])
    }
  })

  test('of a websocket behind a request that has no answer yet is ignored, too', async () => {
    const handshake =
      'Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n'
    const socket = await connectTo(service.url)
    onTestFinished(() => void socket.destroy())
    let heard = ''
    socket.on('data', (chunk) => {
      heard += chunk
    })
    socket.write(
      `GET /v1/items HTTP/1.1\r\nHost: a\r\n\r\nGET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n${handshake}\r\n`,
    )
    await until(() => statusesIn(heard).length === 2, 'both are answered')
    expect(statusesIn(heard)).toEqual([200, 400])
  })
})

describe('the Host header', () => {
  test.each(['/', '/v1/items'])('is optional in HTTP/1.0: GET %s', async (path) => {
    expect((await sendRaw(service.url, `GET ${path} HTTP/1.0\r\n\r\n`)).status).toBe(200)
  })

  test.each(['HEAD', 'OPTIONS'])('is optional in HTTP/1.0: %s', async (method) => {
    const { status } = await sendRaw(service.url, `${method} /v1/items HTTP/1.0\r\n\r\n`)
    expect([200, 204]).toContain(status)
  })

  test('may be empty', async () => {
    expect(
      (await sendRaw(service.url, 'GET /v1/items HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n'))
        .status,
    ).toBe(200)
  })

  test('is required in HTTP/1.1: a problem with headers of its own, and the connection closes', async () => {
    const { status, head, body } = await sendRaw(service.url, 'GET /v1/items HTTP/1.1\r\n\r\n')
    expect([status, JSON.parse(body).detail]).toEqual([400, 'Send a Host header'])
    const names = head.split('\r\n').map((line) => line.split(':')[0]?.toLowerCase())
    expect(names).toEqual(
      expect.arrayContaining([
        'connection',
        'content-type',
        'x-content-type-options',
        'x-request-id',
      ]),
    )
    expect(head).toMatch(/^connection: close$/im)
    expect(head).not.toMatch(/^\d:/m)
  })
})

test.each([
  ['another version', 'GET /v1/items HTTP/2.0\r\nHost: a\r\n\r\n', 'Speak HTTP/1.1'],
  ...['gzip, chunked', 'identity, chunked'].map((coding) => [
    `the transfer coding ${coding}`,
    `POST /v1/items HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ${coding}\r\n\r\n0\r\n\r\n`,
    'Send the body chunked or with its length, in no other transfer coding',
  ]),
])('%s is rejected with a reason', async (_, request, detail) => {
  const { status, body } = await sendRaw(service.url, request)
  expect([status, JSON.parse(body).detail]).toEqual([400, detail])
})

test('OPTIONS * is answered: the server is there', async () => {
  expect(
    (await sendRaw(service.url, 'OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'))
      .status,
  ).toBe(204)
})

test('a body whose coding is written in capitals is read', async () => {
  const body = JSON.stringify({ name: 'Lamp in chunks', price: '1.00', stock: 1 })
  const head =
    'POST /v1/items HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: Chunked\r\n'
  const chunk = `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`
  expect((await sendRaw(service.url, `${head}Connection: close\r\n\r\n${chunk}`)).status).toBe(201)
})

describe('malformed bytes', () => {
  test('cut a started response off, and add nothing to it', async () => {
    const { url, started } = await useStreams()
    const socket = await connectTo(url)
    let heard = ''
    socket.on('data', (chunk) => {
      heard += chunk
    })
    socket.write('GET /stream HTTP/1.1\r\nHost: a\r\n\r\n')
    await until(() => heard.includes('first'), 'the stream has started')
    socket.write('GARBAGE\r\n\r\n')
    await once(socket, 'close')
    expect(statusesIn(heard)).toEqual([200])
    expect(heard.endsWith('first\r\n')).toBe(true)
    await until(() => started.every(({ aborted }) => aborted), 'the stream has ended')
  })

  test('behind a request leave it its answer, and end the connection after it', async () => {
    const { text } = await sendRaw(
      service.url,
      'GET /v1/items HTTP/1.1\r\nHost: a\r\n\r\nGARBAGE\r\n\r\n',
    )
    expect(statusesIn(text)).toEqual([200])
    expect(text.toLowerCase()).toContain('connection: close')
  })

  test('in a body reject its request', async () => {
    const head =
      'POST /v1/items HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n'
    const { text } = await sendRaw(service.url, `${head}zz\r\n{}\r\n0\r\n\r\n`)
    expect(statusesIn(text)).toEqual([400])
  })

  test('alone are rejected with a problem', async () => {
    const { status, head, body } = await sendRaw(service.url, 'GARBAGE\r\n\r\n')
    expect([status, JSON.parse(body).code]).toEqual([400, 'bad_request'])
    expect(head).toMatch(/^content-type: application\/problem\+json$/im)
  })
})

test('an unknown expectation is ignored', async () => {
  const { status } = await sendRaw(
    service.url,
    'GET /v1/items HTTP/1.1\r\nHost: a\r\nExpect: wonders\r\nConnection: close\r\n\r\n',
  )
  expect(status).toBe(200)
})

test.each(['gzip', 'br', 'deflate', 'gzip, identity'])(
  'a JSON body with Content-Encoding: %s is 415, and the answer names the encodings that are accepted',
  async (encoding) => {
    const { status, headers, body } = await request(
      `${service.url}/v1/items`,
      'POST',
      { name: 'Lamp', price: '1', stock: 1 },
      {
        'content-encoding': encoding,
      },
    )
    expect([status, body.code, headers.get('accept-encoding')]).toEqual([
      415,
      'unsupported_media_type',
      'identity',
    ])
  },
)

test.each(['Identity', ''])('a JSON body with Content-Encoding: "%s" is read', async (encoding) => {
  const item = { name: `Plain lamp ${encoding}`, price: '1', stock: 1 }
  const { status } = await request(`${service.url}/v1/items`, 'POST', item, {
    'content-encoding': encoding,
  })
  expect(status).toBe(201)
})

test('pages of listed origins may read every header that answers carry', async () => {
  const { headers } = await request(`${service.url}/nowhere`, 'GET', undefined, {
    origin: 'https://shop.example',
  })
  const exposed = headers.get('access-control-expose-headers')?.split(',')
  for (const name of ['Content-Disposition', 'ETag', 'Location', 'Retry-After', 'X-Request-Id'])
    expect(exposed).toContain(name)
})

describe('requests that a client pipelines', () => {
  test('are served a few at a time, in their order', async () => {
    const { url, running, most } = await useSlow()
    const { text } = await sendRaw(
      url,
      `${pipelined('GET', 100)}${pipelined('GET', 1, 'Connection: close\r\n')}`,
    )
    expect(bodiesIn(text)).toEqual(Array.from({ length: 101 }, (_, number) => String(number)))
    expect([running(), most()]).toEqual([0, 8])
  })

  test('are served one at a time where they may change something', async () => {
    const { url, most } = await useSlow()
    const { text } = await sendRaw(
      url,
      `${pipelined('POST', 5)}${pipelined('POST', 1, 'Connection: close\r\n')}`,
    )
    expect([bodiesIn(text).length, most()]).toEqual([6, 1])
  })

  test('do not overtake one that may change something', async () => {
    const { url, most } = await useSlow()
    const { text } = await sendRaw(
      url,
      `${pipelined('GET', 1)}${pipelined('POST', 1)}${pipelined('GET', 1, 'Connection: close\r\n')}`,
    )
    expect([bodiesIn(text), most()]).toEqual([['0', '1', '2'], 1])
  })

  test('are dropped when the client leaves, and those being served are aborted', async () => {
    const { url, running, served } = await useSlow(60_000)
    const socket = await connectTo(url)
    socket.write(pipelined('GET', 1_000))
    await until(() => running() === 8, 'some are being served')
    socket.destroy()
    await until(() => running() === 0, 'they end')
    expect(served()).toBe(8)
  })

  test('are read ahead only up to a limit', async () => {
    const { url, running } = await useSlow(60_000)
    const socket = await connectTo(url)
    onTestFinished(() => void socket.destroy())
    const flood = pipelined('GET', 2_000)
    for (let index = 0; index < 200; index++) socket.write(flood)
    await until(() => running() === 8, 'some are being served')
    await sleep(300)
    // What the kernel does not hold for the server stays here.
    expect(socket.writableLength).toBeGreaterThan(0)
  })

  test('let those of other clients come in between', async () => {
    const { url, served } = await useSlow()
    await flood(url, 10)
    await until(() => served() > 0, 'the flood has started')
    await fetch(url)
    expect(served()).toBeLessThan(5_000)
  })

  test('do not use up the limit of other clients', async () => {
    const { url, running } = await useSlow(2_000)
    await flood(url, 15)
    await until(() => running() >= 10 * 8, '10 000 are in flight')
    expect((await fetch(url)).status).toBe(200)
  })
})

const pipelined = (method: string, count: number, header = '') =>
  `${method} / HTTP/1.1\r\nHost: a\r\n${header}\r\n`.repeat(count)

/** So many clients send a thousand requests each, and leave at the end of the test. */
async function flood(url: string, clients: number): Promise<void> {
  const sockets = await Promise.all(Array.from({ length: clients }, () => connectTo(url)))
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
  })
  for (const socket of sockets) {
    socket.on('error', () => {}).resume()
    socket.write(pipelined('GET', 1_000))
  }
}

const bodiesIn = (text: string) => [...text.matchAll(/^\[(\d+)\]/gm)].map(([, number]) => number)

/** A server of an app with a path whose stream never ends; `started` has the signal of each. */
async function useStreams() {
  const started: AbortSignal[] = []
  const app = createRouter()
  app.get('/stream', () => {
    const ended = new AbortController()
    started.push(ended.signal)
    const body = new ReadableStream({
      start: (controller) => controller.enqueue(Buffer.from('first')),
      cancel: () => ended.abort(),
    })
    return new Response(body)
  })
  return { url: await listen(app), started }
}

type ServerOptions = Partial<ConstructorParameters<typeof HttpServer>[0]>
type App = Parameters<HttpServer['listen']>[0]
type Waiter = Parameters<Backlog['add']>[0]

/**
 * A server whose requests for `/slow` wait in a backlog until the test says what becomes of them.
 */
async function useBacklog(options: ServerOptions = {}) {
  const waiters: Waiter[] = []
  const records: RequestRecord[] = []
  const served: string[] = []
  const app = createRouter()
  app.onError(errorHandler(openLog({ level: 'silent', format: 'json' })))
  app.use(requestContext(60_000, (ended) => records.push(...ended)))
  app.use(allowOrigins(['https://shop.example']))
  app.use((c, next) => {
    const refusal = c.env.outgoing?.refusal
    if (refusal) throw refusal
    return next()
  })
  app.all('*', async (c) => {
    served.push(`${c.req.method} ${c.req.path}`)
    return c.text(await c.req.text())
  })
  const backlog = {
    get waiting() {
      return waiters.length
    },
    add: (waiter: Waiter) => void waiters.push(waiter),
  }
  const server = await start(app, {
    backlog,
    backlogPaths: ['/slow'],
    ...options,
  })
  return { ...server, waiters, records, served }
}

/** A server that answers with the number of the request, `[0]` first, after some milliseconds. */
async function useSlow(ms = 5) {
  let [served, running, most] = [0, 0, 0]
  const app = createRouter()
  app.all('/', async (c) => {
    const number = served++
    running++
    most = Math.max(most, running)
    const gone = new Promise<void>((resolve) => c.env.outgoing?.once('close', resolve))
    await Promise.race([sleep(ms, undefined, { ref: false }), gone])
    running--
    return new Response(`[${number}]\n`)
  })
  return { url: await listen(app), running: () => running, most: () => most, served: () => served }
}

async function listen(app: App): Promise<string> {
  return (await start(app)).url
}

async function start(app: App, options: ServerOptions = {}) {
  const server = new HttpServer({ leaving: new AbortController().signal, ...options })
  onTestFinished(() => server[Symbol.asyncDispose]())
  return { url: await server.listen(app, '127.0.0.1', 0), inFlight: () => server.inFlight }
}
