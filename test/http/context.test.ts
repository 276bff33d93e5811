import { once } from 'node:events'
import { queryObjects } from 'node:v8'
import { pino } from 'pino'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import {
  type AppContext,
  accessLog,
  currentTrace,
  currentWork,
  getContext,
  RequestContext,
  type RequestRecord,
  requestContext,
  runJob,
} from '../../src/http/context.ts'
import { errorHandler } from '../../src/http/errors.ts'
import { createRouter } from '../../src/http/router.ts'
import { HttpServer } from '../../src/http/server.ts'
import { openLog } from '../../src/log.ts'
import { OPERATOR } from '../support/operator.ts'
import { connectTo } from '../support/raw-http.ts'
import { until } from '../support/until.ts'

const LONG_MS = 60_000

test('what a job leaves behind, such as a connection, does not belong to it any more', async () => {
  const trace = { traceId: 't', traceparent: 'p' }
  const { promise: ended, resolve: end } = Promise.withResolvers<void>()
  let later: Promise<unknown> | undefined
  await runJob({ id: '1', kind: 'test', requestId: null }, trace, async () => {
    expect(currentTrace()).toBe(trace)
    later = ended.then(() => currentWork())
  })
  end()
  expect(await later).toBeUndefined()
})

const log = openLog({ level: 'silent', format: 'json' })

type Handler = (c: AppContext) => Response | Promise<Response>

/** An app of one route, which notes the record of each request. */
function appOf(handler: Handler, timeoutMs = LONG_MS) {
  const records: RequestRecord[] = []
  const app = createRouter()
  app.onError(errorHandler(log))
  app.use(requestContext(timeoutMs, (ended) => records.push(...ended)))
  app.get('/things/:id', handler)
  return { app, records }
}

/** The same behind a socket. */
async function serve(handler: Handler, timeoutMs?: number) {
  const { app, records } = appOf(handler, timeoutMs)
  const server = new HttpServer({ leaving: new AbortController().signal })
  const url = await server.listen(app, '127.0.0.1', 0)
  onTestFinished(() => server[Symbol.asyncDispose]())
  return { url, records }
}

/** A client that asks for a thing and can hang up. */
async function ask(url: string) {
  const socket = await connectTo(url)
  onTestFinished(() => void socket.destroy())
  socket.write('GET /things/1 HTTP/1.1\r\nHost: a\r\n\r\n')
  return socket
}

const aborted = (signal: AbortSignal) =>
  new Promise<never>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))

test('a request is recorded once, with its pattern, status, time and id', async () => {
  const { url, records } = await serve((c) => {
    getContext(c).subject = OPERATOR
    return new Response('a thing', { status: 203 })
  })
  const response = await fetch(`${url}/things/7`)
  expect(await response.text()).toBe('a thing')
  await until(() => records.length > 0, 'it is recorded')
  const requestId = response.headers.get('x-request-id')
  const route = '/things/:id'
  const ms = expect.any(Number)
  const who = { client: '127.0.0.1', subject: OPERATOR.id, hasCredentials: false }
  const did = { statements: [], statementCount: 0, startedAt: expect.any(Number) }
  expect(records).toEqual([
    { method: 'GET', route, status: 203, ms, requestId, ...who, background: false, ...did },
  ])
})

test('a request with X-Background is recorded as a background request', async () => {
  const { url, records } = await serve(() => new Response('a thing'))
  await fetch(`${url}/things/7`, { headers: { 'X-Background': '1' } })
  await until(() => records.length > 0, 'it is recorded')
  expect(records).toMatchObject([{ status: 200, background: true }])
})

test.each([
  ['cookie', 'session=unknown'],
  ['authorization', 'Bearer unknown'],
])('a request with %s is recorded as one with credentials', async (name, value) => {
  const { url, records } = await serve(() => new Response('a thing'))
  await fetch(`${url}/things/7`, { headers: { [name]: value } })
  await until(() => records.length > 0, 'it is recorded')
  expect(records).toMatchObject([{ hasCredentials: true }])
})

test('a streamed answer is recorded when its end is out, not before', async () => {
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>()
  const writer = writable.getWriter()
  const { url, records } = await serve(() => new Response(readable))
  const response = await fetch(`${url}/things/7`)
  const reader = response.body?.getReader()
  void writer.write(Buffer.from('first'))
  expect(String(Buffer.from((await reader?.read())?.value ?? []))).toBe('first')
  expect(records).toEqual([])
  void writer.close()
  expect((await reader?.read())?.done).toBe(true)
  await until(() => records.length > 0, 'it is recorded')
  expect(records[0]?.status).toBe(200)
})

test('a client that leaves aborts the signal, and is recorded as 499', async () => {
  let signal: AbortSignal | undefined
  const { url, records } = await serve((c) => {
    signal = getContext(c).signal
    return aborted(signal)
  })
  const socket = await ask(url)
  await until(() => signal, 'it is being served')
  socket.destroy()
  await until(() => records.length > 0, 'it is recorded')
  expect(signal?.reason).toMatchObject({ code: 'cancelled' })
  expect(records.map(({ status }) => status)).toEqual([499])
})

test('a signal created after the client has left is aborted', async () => {
  const { promise: released, resolve: release } = Promise.withResolvers<void>()
  let signal: AbortSignal | undefined
  let serving = false
  const { url, records } = await serve(async (c) => {
    serving = true
    await released
    signal = getContext(c).signal
    return c.text('too late')
  })
  const socket = await ask(url)
  await until(() => serving, 'it is being served')
  socket.destroy()
  await until(() => records.length > 0, 'it is recorded')
  release()
  await until(() => signal, 'the signal is asked for')
  expect(signal?.reason).toMatchObject({ code: 'cancelled' })
})

test('nothing aborts the signal of a request that is answered', async () => {
  const signals: AbortSignal[] = []
  const serveOnce: Handler = (c) => {
    signals.push(getContext(c).signal)
    return signals.length === 1 ? c.text('in time') : aborted(getContext(c).signal)
  }
  const { url, records } = await serve(serveOnce, 100)
  const socket = await ask(url)
  await once(socket, 'data')
  // Its deadline is after that of the first.
  expect((await fetch(`${url}/things/2`)).status).toBe(504)
  socket.destroy()
  expect([records[0]?.status, signals[0]?.aborted]).toEqual([200, false])
})

test('the signal of a HEAD aborts once it is answered, because nobody reads its stream', async () => {
  let signal: AbortSignal | undefined
  const { url } = await serve((c) => {
    signal = getContext(c).signal
    return new Response(new ReadableStream())
  })
  expect((await fetch(`${url}/things/1`, { method: 'HEAD' })).status).toBe(200)
  await until(() => signal?.aborted, 'the signal aborts')
})

test.each(['EMFILE', 'ENFILE'])(
  'a handler without file descriptors (%s) is overloaded, not broken',
  async (code) => {
    const { url } = await serve(() => {
      throw Object.assign(new Error(`${code}: too many open files`), { code })
    })
    const response = await fetch(`${url}/things/1`)
    expect([response.status, response.headers.has('retry-after')]).toEqual([503, true])
    expect(await response.json()).toMatchObject({ code: 'overloaded' })
  },
)

test('the deadline aborts the signal: 504', async () => {
  const { url, records } = await serve((c) => aborted(getContext(c).signal), 30)
  const response = await fetch(`${url}/things/7`)
  expect(await response.json()).toMatchObject({
    status: 504,
    code: 'deadline_exceeded',
    detail: 'No answer within 30 ms',
  })
  await until(() => records.length > 0, 'it is recorded')
  expect([records[0]?.status, records[0]?.requestId]).toEqual([
    504,
    response.headers.get('x-request-id'),
  ])
})

test('the remaining time counts from the arrival of the request', async () => {
  const { app } = appOf(async (c) => {
    const before = getContext(c).timeLeftMs
    await until(() => getContext(c).timeLeftMs < before, 'time passes')
    return c.json([before, getContext(c).timeLeftMs])
  })
  const [before, after] = (await (await app.request('/things/7')).json()) as [number, number]
  expect(before).toBeLessThanOrEqual(LONG_MS)
  expect(before).toBeGreaterThan(LONG_MS - 5_000)
  expect(after).toBeLessThan(before)
})

test('without a socket there is an id, and a signal with the deadline alone', async () => {
  const ids: string[] = []
  const { app } = appOf((c) => {
    ids.push(getContext(c).requestId, getContext(c).requestId)
    expect(getContext(c).signal).toBe(getContext(c).signal)
    return aborted(getContext(c).signal)
  }, 30)
  const response = await app.request('/things/7')
  expect(await response.json()).toMatchObject({ code: 'deadline_exceeded', requestId: ids[0] })
  expect(ids[1]).toBe(ids[0])
})

test('an idle connection keeps nothing of the request before in memory', async () => {
  let context: WeakRef<AppContext> | undefined
  const { url, records } = await serve((c) => {
    context = new WeakRef(c)
    return new Response('a thing')
  })
  const socket = await ask(url)
  await until(() => records.length === 1, 'the request is answered')
  const isCollected = () => {
    // Collects all garbage before it looks.
    queryObjects(RequestContext)
    return context?.deref() === undefined
  }
  await until(isCollected, 'its memory is free')
  expect(socket.destroyed).toBe(false)
})

test('a request keeps its first 20 statements, and their number', () => {
  const context = new RequestContext(LONG_MS, undefined)
  for (let ms = 1; ms <= 1_000; ms++) context.addStatement({ text: 'select ?', ms })
  expect(context.statementCount).toBe(1_000)
  expect(context.statements.map(({ ms }) => ms)).toEqual(
    Array.from({ length: 20 }, (_, i) => i + 1),
  )
})

describe('the access log', () => {
  const REQUEST: RequestRecord = {
    method: 'GET',
    route: '/v1/items/:id',
    status: 200,
    ms: 1,
    requestId: 'a',
    client: '192.0.2.1',
    subject: undefined,
    background: false,
    hasCredentials: false,
    startedAt: 0,
    statements: [],
    statementCount: 0,
    trace: undefined,
  }

  /** At which level a request is logged, or nothing if it is not. */
  function levelOf(request: Partial<RequestRecord>, level = 'debug'): string | undefined {
    const lines: string[] = []
    accessLog(pino({ level }, { write: (line) => void lines.push(line) }))({
      ...REQUEST,
      ...request,
    })
    expect(lines.length).toBeLessThanOrEqual(1)
    return lines[0] && pino.levels.labels[JSON.parse(lines[0]).level]
  }

  test('says who called, if it is known', () => {
    const lines: object[] = []
    const write = (line: string) => void lines.push(JSON.parse(line))
    const log = accessLog(pino({ base: null }, { write }))
    for (const subject of ['account:7', undefined]) log({ ...REQUEST, subject })
    expect(lines[0]).toMatchObject({ subject: 'account:7', client: '192.0.2.1', requestId: 'a' })
    expect(lines[1]).not.toHaveProperty('subject')
  })

  test("a user's request is logged at info", () => {
    expect(levelOf({})).toBe('info')
    expect(levelOf({ method: 'POST', status: 201 })).toBe('info')
  })

  test('a background read that succeeded, or whose page was left, is logged at debug, and so absent at the default level', () => {
    expect(levelOf({ background: true })).toBe('debug')
    expect(levelOf({ background: true, status: 304 })).toBe('debug')
    expect(levelOf({ background: true, status: 499 })).toBe('debug')
    expect(levelOf({ background: true }, 'info')).toBeUndefined()
  })

  test("an anonymous visitor's page that asks who is signed in is logged at debug, a wrong key at info", () => {
    expect(levelOf({ background: true, status: 401 })).toBe('debug')
    expect(levelOf({ background: true, status: 401, hasCredentials: true })).toBe('info')
  })

  test.each([
    ['a background read that failed', { background: true, status: 404 }],
    ['a read that its client left', { status: 499 }],
    [
      'a change that claims to be in the background',
      { background: true, method: 'DELETE', status: 204 },
    ],
  ])('%s is logged at info', (_, request) => {
    expect(levelOf(request)).toBe('info')
  })

  test('of many refused requests the first is logged at once, and the others as one line with their number', () => {
    vi.useFakeTimers()
    onTestFinished(() => void vi.useRealTimers())
    const lines: object[] = []
    const log = accessLog(
      pino({ base: null }, { write: (line) => void lines.push(JSON.parse(line)) }),
    )
    for (let request = 0; request < 1_000; request++)
      log({ ...REQUEST, status: 503, requestId: String(request) })
    log({ ...REQUEST, method: 'POST', status: 503 })
    log(REQUEST)
    vi.advanceTimersByTime(5_000)
    expect(lines).toMatchObject([
      { method: 'GET', status: 503, requestId: '0', msg: 'request' },
      { method: 'POST', status: 503, msg: 'request' },
      { status: 200, msg: 'request' },
      { method: 'GET', route: '/v1/items/:id', status: 503, refused: 999, msg: 'requests' },
    ])
    log({ ...REQUEST, status: 503, requestId: 'next' })
    expect(lines.at(-1)).toMatchObject({ requestId: 'next' })
  })
})
