import { performance } from 'node:perf_hooks'
import { io } from 'socket.io-client'
import { beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import type { RequestRecord } from '../../src/http/context.ts'
import { LiveRequests, type OpsRequests } from '../../src/ops/live-requests.ts'
import { useFixture } from '../support/fixture/features.ts'
import { OPERATOR_AUTH } from '../support/operator.ts'
import { request } from '../support/service.ts'
import { until } from '../support/until.ts'

const MINUTE_MS = 60_000
/** Widest bucket, in share of the time. */
const PRECISION = 1.091

let requests: LiveRequests

beforeEach(() => {
  requests = new LiveRequests()
})

describe('the times of routes', () => {
  test('are counted by method and pattern, the most frequent first', () => {
    observe({ route: '/a' }, { route: '/b' }, { method: 'POST', route: '/b' }, { route: '/b' })
    expect(requests.read().routes.map(({ route, count }) => [route, count])).toEqual([
      ['GET /b', 2],
      ['GET /a', 1],
      ['POST /b', 1],
    ])
  })

  test('have percentiles that are at most 9 % too high', () => {
    observe(...Array.from({ length: 1_000 }, (_, index) => ({ ms: index + 1 })))
    const { p50 = 0, p99 = 0 } = requests.read().routes[0] ?? {}
    expect(p50).toBeGreaterThanOrEqual(500)
    expect(p50).toBeLessThan(500 * PRECISION)
    expect(p99).toBeGreaterThanOrEqual(990)
    expect(p99).toBeLessThanOrEqual(1_000)
  })

  test('bear times of no length, and of hours', () => {
    observe({ ms: 0 }, { ms: 0 }, { ms: 36e5 })
    expect(requests.read().routes[0]).toMatchObject({ p50: 0.001, p99: expect.any(Number) })
  })

  test('tell errors from refusals, whose short times do not count', () => {
    observe(...[500, 502, 504, 507].map((status) => ({ status, ms: 80 })))
    observe(...[429, 503, 503, 429, 503].map((status) => ({ status, ms: 0.1 })))
    observe({ status: 404, ms: 80 })
    expect(requests.read().routes).toMatchObject([
      { count: 10, errors: 4, refused: 5, p50: 80, p99: 80 },
    ])
  })

  test('of a route that refuses everything are unknown', () => {
    observe({ status: 503 })
    const [route] = requests.read().routes
    expect(route).toMatchObject({ count: 1, refused: 1, errors: 0 })
    expect(route).not.toHaveProperty('p50')
  })

  test('are of the last minute', () => {
    const clock = stopClock()
    requests = new LiveRequests()
    observe(...new Array(120).fill({ route: '/a' }))
    clock.forward(MINUTE_MS)
    expect(requests.read().routes).toMatchObject([{ route: 'GET /a', count: 120, perSecond: 2 }])
    observe({ route: '/b' })
    clock.forward(10_000)
    expect(requests.read().routes).toMatchObject([{ route: 'GET /b', count: 1 }])
    clock.forward(MINUTE_MS)
    expect(requests.read().routes).toEqual([])
  })

  test('are kept for 100 of them, and of others in sum', () => {
    for (let index = 0; index < 10_000; index++) observe({ route: `/${index}` })
    const { routes } = requests.read()
    expect(routes).toHaveLength(101)
    expect(routes[0]).toMatchObject({ route: 'other', count: 9_900 })
  })

  test('make room for new ones once they are too old', () => {
    const clock = stopClock()
    for (let index = 0; index < 200; index++) observe({ route: `/old/${index}` })
    clock.forward(2 * MINUTE_MS)
    observe({ route: '/new' })
    expect(requests.read().routes.map(({ route }) => route)).toEqual(['GET /new'])
  })
})

describe('the times of statements', () => {
  test('are in sum, the longest first', () => {
    const clock = stopClock()
    for (const ms of [1, 2, 3]) run('select ? from short', clock, ms)
    run('select ? from long', clock, 50)
    const [long, short] = requests.read().statements
    expect(long).toEqual({
      text: 'select ? from long',
      count: 1,
      totalMs: 50,
      p50: 50,
      p99: 50,
      max: 50,
    })
    expect(short).toMatchObject({ count: 3, totalMs: 6, max: 3 })
  })

  test('are of the last ten minutes', () => {
    const clock = stopClock()
    run('select a', clock, 1)
    clock.forward(10 * MINUTE_MS)
    expect(requests.read().statements).toHaveLength(1)
    clock.forward(MINUTE_MS)
    expect(requests.read().statements).toEqual([])
  })

  test('are kept for 100 of them, and of others in sum', () => {
    const clock = stopClock()
    for (let index = 0; index < 10_000; index++) run(`select column_${index} from a`, clock, 1)
    const { statements } = requests.read()
    expect(statements).toHaveLength(101)
    expect(statements[0]).toMatchObject({ text: 'other', count: 9_900, totalMs: 9_900 })
  })
})

describe('the latest requests', () => {
  test('are 200, the newest last', () => {
    for (let index = 0; index < 1_000; index++) observe({ requestId: `r${index}` })
    const { latest, leftOut } = requests.read()
    expect([latest.length, latest[0]?.requestId, latest.at(-1)?.requestId]).toEqual([
      200,
      'r800',
      'r999',
    ])
    expect(leftOut).toBe(0)
  })

  test('are without successful reads in the background, which count all the same', () => {
    observe(
      { background: true },
      { background: true, status: 304, method: 'HEAD' },
      { background: true, status: 500 },
      { background: true, method: 'POST' },
    )
    const { latest, routes } = requests.read()
    expect(latest.map(({ method, status }) => `${method} ${status}`)).toEqual([
      'GET 500',
      'POST 200',
    ])
    expect(routes.reduce((sum, { count }) => sum + count, 0)).toBe(4)
  })

  test('have their tasks, alike ones in sum', () => {
    const chunk = { task: 'a.map', outcome: 'succeeded', items: 250, requestId: 'r1' } as const
    for (let index = 1; index <= 40; index++)
      requests.observeTask({ ...chunk, queuedMs: index, runMs: 2 })
    requests.observeTask({ ...chunk, outcome: 'failed', queuedMs: -0.1, runMs: 1.23456 })
    requests.observeTask({ ...chunk, requestId: undefined, queuedMs: 1, runMs: 1 })
    observe({ requestId: 'r1' }, { requestId: 'r2' })
    const [first, second] = requests.read().latest
    expect(first?.tasks).toEqual([
      { task: 'a.map', outcome: 'succeeded', count: 10_000, queuedMs: 40, runMs: 80 },
      { task: 'a.map', outcome: 'failed', count: 250, queuedMs: 0, runMs: 1.235 },
    ])
    expect(second?.tasks).toEqual([])
  })

  test('have at most 20 kinds of tasks', () => {
    for (let index = 0; index < 100; index++)
      requests.observeTask({
        task: `task-${index}`,
        outcome: 'succeeded',
        items: 1,
        requestId: 'r1',
        queuedMs: 0,
        runMs: 1,
      })
    observe({ requestId: 'r1' })
    expect(requests.read().latest[0]?.tasks).toHaveLength(20)
  })

  test('show nothing of headers or credentials', () => {
    observe({ client: '192.0.2.1', subject: 'account:1' })
    expect(Object.keys(requests.read().latest[0] ?? {}).sort()).toEqual(
      'client method ms requestId route startedAt statementCount statements status subject tasks'.split(
        ' ',
      ),
    )
  })
})

describe('events', () => {
  test('have what is new, once a second, while somebody subscribes', () => {
    const { published, setSubscribed, pass } = publish()
    observe({ requestId: 'unheard' })
    pass(1_000)
    expect(published).toEqual([])
    setSubscribed(true)
    observe({ requestId: 'r1' }, { requestId: 'r2' })
    pass(1_000)
    observe({ requestId: 'r3' })
    pass(1_000)
    expect(published.map(({ latest }) => latest.map(({ requestId }) => requestId))).toEqual([
      ['r1', 'r2'],
      ['r3'],
    ])
    expect(published.at(-1)?.routes).toMatchObject([{ route: 'GET /v1/items/:id', count: 4 }])
  })

  test('come of an idle service only when the window has moved', () => {
    const { published, setSubscribed, pass } = publish()
    setSubscribed(true)
    observe({})
    pass(1_000)
    pass(30_000)
    expect(published.length).toBeLessThanOrEqual(4)
    pass(2 * MINUTE_MS)
    expect(published.at(-1)?.routes).toEqual([])
  })

  test('have the newest 50, and the number of the others', () => {
    const { published, setSubscribed, pass } = publish()
    setSubscribed(true)
    for (let index = 0; index < 5_000; index++) observe({ requestId: `r${index}` })
    pass(1_000)
    const { latest = [], leftOut } = published.at(-1) ?? {}
    expect([latest[0]?.requestId, latest.at(-1)?.requestId, leftOut]).toEqual([
      'r4950',
      'r4999',
      4_950,
    ])
  })

  test('stay below 350 KiB, whatever happens', () => {
    const { published, setSubscribed, pass } = publish()
    setSubscribed(true)
    const statement = { text: 's'.repeat(200), ms: 1.234 }
    const statements = new Array(20).fill(statement)
    for (let index = 0; index < 5_000; index++)
      observe({ route: `/${'r'.repeat(60)}/${index}`, statements, statementCount: 20 })
    for (let index = 0; index < 5_000; index++)
      requests.addStatement(`select a${index}, ${'s'.repeat(200)}`.slice(0, 200), 0)
    pass(1_000)
    expect(JSON.stringify(published.at(-1)).length).toBeLessThan(350 * 1_024)
  })

  /** Publishes into a list, by a clock that stands still. */
  function publish() {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
    const clock = stopClock()
    const published: OpsRequests[] = []
    let isSubscribed = false
    const stop = requests.start({
      processId: 'test',
      realtime: {
        hasSubscribers: () => isSubscribed,
        emitLatest: (_topic, _event, payload) => published.push(payload as OpsRequests),
      },
      log: { warn: expect.unreachable },
    })
    onTestFinished(() => {
      stop()
      vi.useRealTimers()
    })
    return {
      published,
      setSubscribed: (value: boolean) => {
        isSubscribed = value
      },
      pass(ms: number) {
        for (let passed = 0; passed < ms; passed += 1_000) {
          clock.forward(1_000)
          vi.advanceTimersByTime(1_000)
        }
      },
    }
  }
})

describe('a service', () => {
  test('shows what a request did: its statements in their order, and its tasks', async () => {
    const { url } = await useFixture()
    const { body: item } = await request(`${url}/v1/items`, 'POST', {
      name: 'A private name',
      price: '1.00',
      stock: 1,
    })
    const changed = await request(`${url}/v1/items/${item.id}`, 'PATCH', { stock: 2 })
    const worked = await request(`${url}/v1/work?ms=3`)
    const find = await readLatest(url, worked)
    expect(find(changed)).toMatchObject({
      method: 'PATCH',
      route: '/v1/items/:id',
      status: 200,
      client: expect.stringMatching(/127\.0\.0\.1|::1/),
      subject: 'account:1',
      statementCount: 5,
      tasks: [],
    })
    expect(find(changed)?.statements.map(({ text }: { text: string }) => text)).toEqual([
      'begin',
      'select id, name, price, stock, version from item where id = ? for update',
      'update item set stock = ?, version = version + ? where id = ?',
      'select id, name, price, stock, version from item where id = ?',
      'commit',
    ])
    for (const { ms } of find(changed)?.statements ?? []) expect(ms).toBeGreaterThan(0)
    const [task] = find(worked)?.tasks ?? []
    expect(task).toMatchObject({ task: 'work.spin', outcome: 'succeeded', count: 1 })
    expect(task?.runMs).toBeGreaterThanOrEqual(3)
  })

  test('counts what is at no route as one', async () => {
    const { url } = await useFixture()
    for (let index = 0; index < 10; index++) await request(`${url}/nowhere/${index}`)
    const last = await request(`${url}/nowhere/at-all`)
    const find = await readLatest(url, last)
    expect(find(last)).toMatchObject({ status: 404, route: '/*' })
    expect((await read(url)).routes.filter(({ count }) => count === 11)).toHaveLength(1)
  })

  test('does not log the files of the page', async () => {
    const { url } = await useFixture()
    await (await fetch(`${url}/page.js`)).text()
    const last = await request(`${url}/v1/items`)
    await readLatest(url, last)
    const { routes, latest } = await read(url)
    expect(routes.map(({ route }) => route)).toContain('GET /page.js')
    expect(latest.map(({ route }) => route)).not.toContain('/page.js')
  })

  test('publishes requests to those who subscribe', async () => {
    const { url } = await useFixture()
    const socket = io(url, { transports: ['websocket'], ...OPERATOR_AUTH })
    onTestFinished(() => void socket.close())
    await socket.emitWithAck('subscribe', 'ops')
    const heard: string[] = []
    socket.on('ops.requests', ({ latest }: OpsRequests) =>
      heard.push(...latest.map(({ requestId }) => requestId)),
    )
    const { headers } = await request(`${url}/v1/items`)
    const requestId = headers.get('x-request-id')
    await until(() => requestId && heard.includes(requestId), 'it is published')
  })

  const read = async (url: string): Promise<OpsRequests> =>
    (await request(`${url}/v1/ops/requests`)).body

  /** Finds requests by their answers, once the last of them is recorded. */
  async function readLatest(url: string, last: { headers: Headers }) {
    const idOf = ({ headers }: { headers: Headers }) => headers.get('x-request-id')
    const latest = await until(async () => {
      const found = (await read(url)).latest
      return found.some(({ requestId }) => requestId === idOf(last)) ? found : undefined
    }, 'the request is recorded')
    return (answer: { headers: Headers }) =>
      latest.find(({ requestId }) => requestId === idOf(answer))
  }
})

const observe = (...records: Partial<RequestRecord>[]) =>
  requests.observe(records.map((record) => ({ ...RECORD, ...record })))

const RECORD: RequestRecord = {
  method: 'GET',
  route: '/v1/items/:id',
  status: 200,
  ms: 1,
  requestId: 'r',
  client: undefined,
  subject: undefined,
  background: false,
  hasCredentials: false,
  startedAt: 1_800_000_000_000,
  statements: [],
  statementCount: 0,
  trace: undefined,
}

/** A clock that moves only by hand. */
function stopClock() {
  let now = 1_000_000
  const spy = vi.spyOn(performance, 'now').mockImplementation(() => now)
  onTestFinished(() => spy.mockRestore())
  return {
    forward(ms: number) {
      now += ms
    },
  }
}

function run(text: string, clock: ReturnType<typeof stopClock>, ms: number) {
  clock.forward(ms)
  requests.addStatement(text, ms)
}
