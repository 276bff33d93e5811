import { sql } from 'kysely'
import { io } from 'socket.io-client'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Db } from '../../src/db/database.ts'
import { Metrics } from '../../src/ops/metrics.ts'
import { startFixture } from '../support/fixture/features.ts'
import { readMetrics, request } from '../support/service.ts'
import { until } from '../support/until.ts'

/** Of one finished job. */
const DOUBLINGS = 14

let service: Awaited<ReturnType<typeof startFixture>>

beforeAll(async () => {
  service = await startFixture({ COMPUTE_THREADS: '1' })
})
afterAll(() => service.close())

test('the page is in the text format of Prometheus', async () => {
  const response = await fetch(`${service.opsUrl}/metrics`)
  expect(response.status).toBe(200)
  expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8')
  const lines = (await response.text()).trim().split('\n')
  expect(lines.filter((line) => !/^(# (HELP|TYPE) \w+ .+|\w+(\{.*\})? \S+)?$/.test(line))).toEqual(
    [],
  )
})

describe('requests', () => {
  test('are counted by method, pattern and status, not by path', async () => {
    for (const id of [880_001, 880_002, 880_003]) await request(`${service.url}/v1/items/${id}`)
    await request(`${service.url}/v1/items/880004`, 'DELETE')
    const page = await readPage()
    expect(
      page.get(
        'http_request_duration_seconds_count{method="GET",route="/v1/items/:id",status="404"}',
      ),
    ).toBe(3)
    expect(
      page.get(
        'http_request_duration_seconds_count{method="DELETE",route="/v1/items/:id",status="404"}',
      ),
    ).toBe(1)
    expect([...page.keys()].filter((name) => name.includes('88000'))).toEqual([])
  })

  test('that do not fit are counted under their pattern too', async () => {
    await request(`${service.url}/v1/items/seven`)
    const page = await readPage()
    expect(
      page.get(
        'http_request_duration_seconds_count{method="GET",route="/v1/items/:id",status="422"}',
      ),
    ).toBe(1)
  })

  test('to paths that do not exist share one series', async () => {
    for (let index = 0; index < 20; index++) await request(`${service.url}/nowhere/${index}/at-all`)
    const series = [...(await readPage())].filter(([name]) =>
      name.startsWith('http_request_duration_seconds_count'),
    )
    expect(series.filter(([name]) => name.includes('nowhere'))).toEqual([])
    expect(
      series.filter(([name, requests]) => name.includes('status="404"') && requests >= 20),
    ).toHaveLength(1)
  })

  test('have their time in seconds', async () => {
    await request(service.url, 'HEAD')
    const page = await readPage()
    const labels = 'method="HEAD",route="/",status="200"'
    expect(page.get(`http_request_duration_seconds_count{${labels}}`)).toBe(1)
    expect(page.get(`http_request_duration_seconds_bucket{le="10",${labels}}`)).toBe(1)
    expect(page.get(`http_request_duration_seconds_sum{${labels}}`)).toBeGreaterThan(0)
  })
})

describe('compute', () => {
  test('shows what runs and what waits', async () => {
    const controller = new AbortController()
    const endless = Array.from({ length: 3 }, () =>
      fetch(`${service.url}/v1/work?ms=600000`, { signal: controller.signal }).catch(() => {}),
    )
    await until(async () => (await readPage()).get('compute_queued') === 2, 'all but one wait')
    expect((await readPage()).get('compute_threads_busy')).toBe(1)
    controller.abort()
    await Promise.all(endless)
    await until(async () => {
      const page = await readPage()
      return page.get('compute_queued') === 0 && page.get('compute_threads_busy') === 0
    }, 'nothing runs or waits')
  })

  test('counts tasks by name and outcome', async () => {
    await request(`${service.url}/v1/work?ms=1`)
    const page = await readPage()
    const tasks = page.get(
      'compute_task_duration_seconds_count{task="work.spin",outcome="succeeded"}',
    )
    expect(tasks).toBeGreaterThan(0)
    expect(page.get('compute_queue_wait_seconds_count{task="work.spin"}')).toBeGreaterThanOrEqual(
      tasks ?? Number.NaN,
    )
    expect(page.get('compute_threads')).toBe(1)
  })
})

test('the database shows its connections, who waits for one, and how long they waited', async () => {
  const before = await readPage()
  const pool = (page: Map<string, number>) =>
    ['size', 'in_use', 'waiting'].map((figure) => page.get(`database_pool_${figure}`))
  // The page itself counts jobs, and workers look for some.
  expect(pool(before)).toEqual([10, expect.toSatisfy((inUse: number) => inUse < 5), 0])
  await service.database
    .withSignal()
    .connection()
    .execute(async (db) => {
      await sql`lock tables item write`.execute(db)
      const reads = Array.from({ length: 12 }, () => request(`${service.url}/v1/items`))
      const page = await until(async () => {
        const page = await readPage()
        return (page.get('database_pool_waiting') ?? 0) >= 2 ? page : undefined
      }, 'those beyond the pool wait')
      expect(pool(page)).toEqual([10, 10, expect.any(Number)])
      await sql`unlock tables`.execute(db)
      await Promise.all(reads)
    })
  const waits = (page: Map<string, number>) =>
    page.get('database_pool_wait_seconds_count') ?? Number.NaN
  expect(waits(await readPage())).toBeGreaterThanOrEqual(waits(before) + 2)
})

test('connected clients are counted', async () => {
  const socket = io(service.url, { transports: ['websocket'], reconnection: false })
  await until(() => socket.connected, 'the client is connected')
  expect((await readPage()).get('realtime_connections')).toBe(1)
  socket.close()
  await until(
    async () => (await readPage()).get('realtime_connections') === 0,
    'the client is gone',
  )
})

test.each([
  'process_cpu_seconds_total',
  'process_resident_memory_bytes',
  'nodejs_eventloop_lag_p50_seconds',
  'nodejs_eventloop_lag_p99_seconds',
  'nodejs_eventloop_lag_max_seconds',
  'nodejs_eventloop_utilization_ratio',
  'nodejs_gc_duration_seconds_count{kind="minor"}',
  'nodejs_heap_size_used_bytes',
])('the process shows its %s', async (name) => {
  // Delays are those since the last reading, and there may have been none.
  await until(async () => ((await readPage()).get(name) ?? 0) > 0, 'it is above 0')
})

/** Every series with its value. */
async function readPage(): Promise<Map<string, number>> {
  const text = await readMetrics(service.opsUrl)
  const lines = text.split('\n').filter((line) => line && !line.startsWith('#'))
  return new Map(
    lines.map((line) => {
      const end = line.lastIndexOf(' ')
      return [line.slice(0, end), Number(line.slice(end + 1))]
    }),
  )
}

describe('jobs', () => {
  test('have times and failures by kind, of at most fifty kinds', async () => {
    const metrics = new Metrics()
    for (let index = 0; index < 60; index++) {
      metrics.jobObserver.started(`test.${index}`, 2_000)
      metrics.jobObserver.ended(`test.${index}`, 40_000)
      metrics.jobObserver.failed(`test.${index}`)
    }
    const page = await metrics.scrape()
    const count = (name: string) => page.split('\n').filter((line) => line.startsWith(name)).length
    for (const name of [
      'jobs_wait_seconds_count{',
      'jobs_run_seconds_count{',
      'jobs_failed_total{',
    ])
      expect(count(name)).toBe(51)
    expect(page).toContain('jobs_wait_seconds_sum{kind="test.49"} 2\n')
    expect(page).toContain('jobs_run_seconds_bucket{le="60",kind="other"} 10\n')
    expect(page).toContain('jobs_failed_total{kind="other"} 10\n')
  })

  test('that many processes ran are counted without holding up a scrape', async () => {
    const db = service.database.withSignal()
    await insertFinished(db)
    const startedAt = performance.now()
    await readPage()
    expect(performance.now() - startedAt).toBeLessThan(1_000)
    await until(async () => (await readPage()).get('jobs{state="succeeded"}'), 'they are counted')
  })
})

async function insertFinished(db: Db): Promise<void> {
  await sql`
    insert into job (id, kind, state, priority, max_attempts, input, due_at)
    values (uuid(), 'test.old', 'succeeded', 0, 1, 'null', now(3) + interval 1 day)
  `.execute(db)
  for (let doubling = 0; doubling < DOUBLINGS; doubling++)
    await sql`
      insert into job (id, kind, state, priority, max_attempts, input, due_at)
      select uuid(), kind, state, priority, max_attempts, input, due_at from job
    `.execute(db)
}
