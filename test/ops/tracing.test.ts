import { handle, job } from '@offloop/jobs/job'
import { sql } from 'kysely'
import { describe, expect, test, vi } from 'vitest'
import { z } from 'zod'
import { transaction } from '../../src/db/transaction.ts'
import { type Deps, type Feature, feature } from '../../src/feature.ts'
import {
  type AppContext,
  currentTrace,
  getContext,
  type RequestRecord,
  type Trace,
  taskOptions,
} from '../../src/http/context.ts'
import { createRouter, withAccess } from '../../src/http/router.ts'
import { openService } from '../../src/main.ts'
import { Tracing } from '../../src/ops/tracing.ts'
import { event } from '../../src/realtime/event.ts'
import { type CollectedSpan, useCollector, useCollectorThat } from '../support/collector.ts'
import { useDatabase } from '../support/database.ts'
import { fixtureFeatures } from '../support/fixture/features.ts'
import { work } from '../support/fixture/tasks.ts'
import { RECORD_LOADS, useProcess } from '../support/process.ts'
import { request, useService } from '../support/service.ts'
import { until } from '../support/until.ts'

const TRACE_ID = '4bf92f3577b34da6a3ce929d0e0e4736'
const PARENT_ID = '00f067aa0ba902b7'
const SAMPLED = `00-${TRACE_ID}-${PARENT_ID}-01`
const NOT_SAMPLED = `00-${TRACE_ID}-${PARENT_ID}-00`

const noted = event('note.added', { topic: 'notes', when: 'Always.', payload: z.object({}) })
const note = job<{ name: string }>('note.add')
const failing = job<object>('note.fail', { attempts: 1 })

/** Does all that is traced: in a request, and in a job that this enqueues. */
const notes = feature({
  name: 'notes',
  path: '/v1/notes',
  topics: [{ name: 'notes', access: 'public' }],
  events: [noted],
  jobs: ({ database, compute, realtime }: Deps) => [
    handle(note, async ({ name }, { signal }) => {
      const db = database.withSignal(signal)
      await db.insertInto('item').values({ name, price: '1.00', stock: 1 }).execute()
      await compute.run(work, { ms: 1 }, { signal, trace: currentTrace()?.traceparent })
      realtime.emit('notes', noted, {})
    }),
    handle(failing, () => Promise.reject(new Error('It does not work'))),
  ],
  routes({ database, compute, jobs, realtime }: Deps) {
    const router = createRouter()
    router.openapi({
      method: 'post',
      path: '/{name}',
      operationId: 'addNote',
      access: 'public',
      request: { params: z.object({ name: z.string() }) },
      responses: { 204: { description: 'Added' } },
      handler: async (c) => {
        const { name } = c.req.valid('param')
        const db = database.withSignal(getContext(c).signal)
        await db.selectFrom('item').select('id').where('name', '=', name).execute()
        await transaction(db, async (trx) => {
          await trx.selectFrom('item').select('stock').where('name', '=', name).execute()
          const { requestId } = getContext(c)
          await jobs.enqueue(trx, name === 'fail' ? failing : note, { name }, { requestId })
        })
        await compute.run(work, { ms: 1 }, taskOptions(c))
        realtime.emit('notes', noted, {})
        return c.body(null, 204)
      },
    })
    return router
  },
})

const THREAD = new URL('../support/fixture/thread.ts', import.meta.url)

const useTraced = (
  endpoint: string,
  env: NodeJS.ProcessEnv = {},
  features: readonly Feature[] = [...fixtureFeatures, notes],
) =>
  useService({ OTEL_EXPORTER_OTLP_ENDPOINT: endpoint, ...env }, (all) =>
    openService(all, features, THREAD),
  )

const addNote = (url: string, name: string, traceparent?: string) =>
  request(`${url}/v1/notes/${name}`, 'POST', undefined, traceparent ? { traceparent } : {})

describe('a trace', () => {
  test('shows what a request did: SQL, a transaction, a task on its thread and push; the job that it enqueued links to it', async () => {
    const collector = await useCollector()
    const { url, stop } = await useTraced(collector.url)
    await addNote(url, 'secret-lamp')
    await until(() => collector.find('job note.add'), 'the job is traced')
    await stop()
    const served = find(collector, 'POST /v1/notes/:name')
    expect(collector.tree(served)).toEqual([
      'POST /v1/notes/:name',
      '  credential.by-token',
      '  select item',
      '  transaction',
      '    begin',
      '    select item',
      '    insert job',
      '    commit',
      '  task work.spin',
      '  publish note.added',
    ])
    expect(served.parentSpanId).toBeUndefined()
    expect(served).toMatchObject({
      service: 'offloop',
      failed: false,
      attributes: {
        'http.request.method': 'POST',
        'http.route': '/v1/notes/:name',
        'http.response.status_code': 204,
        'request.id': expect.any(String),
      },
    })
    const ran = find(collector, 'job note.add')
    expect(collector.tree(ran)).toEqual([
      'job note.add',
      '  insert item',
      '  task work.spin',
      '  publish note.added',
    ])
    expect(ran.traceId).not.toBe(served.traceId)
    expect(ran.links).toEqual([{ traceId: served.traceId, spanId: served.spanId }])
    expect(ran.attributes).toMatchObject({
      'job.attempt': 1,
      'request.id': served.attributes['request.id'],
    })
    const task = find(collector, 'task work.spin', served)
    expect(task.attributes).toMatchObject({
      'thread.name': expect.stringMatching(/^compute-\d$/),
      'task.outcome': 'succeeded',
      'task.items': 1,
    })
    expect(task.attributes['task.run_ms']).toBeGreaterThan(0)
    for (const span of collector.spans) expect(span.endedAt).toBeGreaterThanOrEqual(span.startedAt)
    for (const span of [task, find(collector, 'transaction')]) expectWithin(span, served)
    expect(JSON.stringify(collector.spans)).not.toContain('secret-lamp')
  })

  test('goes on where the caller has begun it', async () => {
    const collector = await useCollector()
    const { url, stop } = await useTraced(collector.url)
    await request(`${url}/v1/items/1`, 'GET', undefined, { traceparent: SAMPLED })
    await request(`${url}/v1/items/2`, 'GET', undefined, { traceparent: NOT_SAMPLED })
    await request(`${url}/v1/items/3`, 'GET', undefined, { traceparent: 'made up' })
    await stop()
    const roots = collector.spans.filter(({ name }) => name === 'GET /v1/items/:id')
    expect(roots).toHaveLength(2)
    expect(roots[0]).toMatchObject({ traceId: TRACE_ID, parentSpanId: PARENT_ID })
    expect(roots[1]?.traceId).not.toBe(TRACE_ID)
  })

  test('of what failed says so, without the message', async () => {
    const collector = await useCollector()
    const { url, stop } = await useTraced(collector.url)
    await addNote(url, 'fail')
    await until(() => collector.find('job note.fail'), 'the job is traced')
    await stop()
    expect(find(collector, 'job note.fail').failed).toBe(true)
    expect(JSON.stringify(collector.spans)).not.toContain('does not work')
  })

  test('has 200 spans at most, and says how many it left out', async () => {
    const collector = await useCollector()
    await using tracing = openTracing(collector.url)
    const traced = startRequest(tracing)
    for (let turn = 0; turn < 250; turn++) tracing.observeStatement(traced, { ...STATEMENT })
    tracing.observeRequests([toRecord(traced)])
    await tracing[Symbol.asyncDispose]()
    const root = find(collector, 'GET /v1/items')
    expect(collector.tree(root)).toHaveLength(201)
    expect(root.attributes['spans_left_out']).toBe(50)
  })

  test('has no more of them for many transactions', async () => {
    const collector = await useCollector()
    await using tracing = openTracing(collector.url)
    const traced = startRequest(tracing)
    for (let turn = 0; turn < 250; turn++) {
      const session = {}
      for (const text of ['begin', 'commit'])
        tracing.observeStatement(traced, { ...STATEMENT, name: text, text, session })
    }
    tracing.observeRequests([toRecord(traced)])
    await tracing[Symbol.asyncDispose]()
    const root = find(collector, 'GET /v1/items')
    expect(collector.spans).toHaveLength(201)
    expect(root.attributes['spans_left_out']).toBe(3 * 250 - 200)
  })

  test('shows that a transaction was rolled back, also because its connection was killed', async () => {
    const collector = await useCollector()
    const slow = feature({
      name: 'slow',
      path: '/v1/slow',
      routes({ database }: Deps) {
        const router = createRouter()
        const handler = (c: AppContext) =>
          transaction(database.withSignal(getContext(c).signal), async (trx) => {
            await sql`select sleep(60)`.execute(trx)
            return c.body(null, 204)
          })
        router.get('/', withAccess('public', handler))
        return router
      },
    })
    const { url, stop } = await useTraced(collector.url, { REQUEST_TIMEOUT_MS: '2000' }, [slow])
    expect((await request(`${url}/v1/slow`)).status).toBe(504)
    await stop()
    const root = find(collector, 'GET /v1/slow')
    expect(collector.tree(root).slice(-4)).toEqual([
      '  transaction',
      '    begin',
      '    select',
      '    rollback',
    ])
    for (const span of [root, find(collector, 'transaction')]) expect(span.failed).toBe(true)
  })

  test('has its id in the lines that the log has of it', async () => {
    const collector = await useCollector()
    const service = useProcess('test/support/fixture/main.ts', {
      DATABASE_URL: (await useDatabase()).url,
      OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
      OTEL_SERVICE_NAME: 'shop',
      SLOW_QUERY_MS: '1',
    })
    await request(`${await service.url()}/v1/items/1`, 'GET', undefined, { traceparent: SAMPLED })
    const root = await until(() => collector.find('GET /v1/items/:id'), 'it is traced')
    expect(root.service).toBe('shop')
    await until(() => logged(service.output(), 'request').length > 0, 'it is logged')
    for (const line of logged(service.output(), 'request')) expect(line.traceId).toBe(TRACE_ID)
  })
})

describe('sampling', () => {
  test.each([
    ['always_off', SAMPLED, 0],
    ['parentbased_always_off', SAMPLED, 1],
    ['parentbased_always_off', undefined, 0],
    ['always_on', NOT_SAMPLED, 1],
    ['parentbased_always_on', NOT_SAMPLED, 0],
  ])('by %s, of a caller that sends %s', async (OTEL_TRACES_SAMPLER, traceparent, sampled) => {
    const collector = await useCollector()
    const { url, stop } = await useTraced(collector.url, { OTEL_TRACES_SAMPLER })
    const headers: Record<string, string> = traceparent ? { traceparent } : {}
    await request(`${url}/v1/items`, 'GET', undefined, headers)
    await stop()
    const roots = collector.spans.filter(({ name }) => name === 'GET /v1/items')
    expect(roots).toHaveLength(sampled)
    expect(collector.spans.length > 0).toBe(sampled > 0)
  })

  test('by a ratio takes about that share of requests, whole', async () => {
    const collector = await useCollector()
    const { url, stop } = await useTraced(collector.url, {
      OTEL_TRACES_SAMPLER: 'parentbased_traceidratio',
      OTEL_TRACES_SAMPLER_ARG: '0.5',
    })
    for (let turn = 0; turn < 200; turn++) await request(`${url}/v1/items`)
    await stop()
    const roots = collector.spans.filter(({ name }) => name === 'GET /v1/items')
    expect(roots.length).toBeGreaterThan(60)
    expect(roots.length).toBeLessThan(140)
    const ids = new Set(roots.map(({ traceId }) => traceId))
    expect(collector.spans.filter(({ traceId }) => !ids.has(traceId))).toEqual([])
    for (const root of roots) expect(collector.tree(root)).toContain('  select item')
  })
})

describe('a collector', () => {
  test('that is dead costs no request', async () => {
    const { url, stop } = await useTraced('http://127.0.0.1:9')
    const statuses = new Set<number>()
    for (let turn = 0; turn < 50; turn++) statuses.add((await request(`${url}/v1/items`)).status)
    expect([...statuses]).toEqual([200])
    const startedAt = performance.now()
    await stop()
    expect(performance.now() - startedAt).toBeLessThan(20_000)
  })

  test('that never answers gets so much and no more, which is counted, and holds up no stop', async () => {
    const log = { info: vi.fn(), warn: vi.fn() }
    const onDrop = vi.fn()
    const tracing = openTracing(await useCollectorThat(() => {}), log, onDrop)
    for (let turn = 0; turn < 9_000; turn++)
      tracing.observeRequests([toRecord(startRequest(tracing))])
    expect(onDrop).toHaveBeenCalledTimes(9_000 - 8_192)
    expect(log.warn).toHaveBeenCalledOnce()
    const startedAt = performance.now()
    await tracing[Symbol.asyncDispose]()
    expect(performance.now() - startedAt).toBeLessThan(10_000)
  })

  test('that refuses spans is named in the log once, until it takes them again', async () => {
    const log = { info: vi.fn(), warn: vi.fn() }
    const onDrop = vi.fn()
    let status = 400
    const url = await useCollectorThat((request, response) => {
      request.resume().on('end', () => response.writeHead(status).end('{}'))
    })
    await using tracing = openTracing(url, log, onDrop)
    const send = () => tracing.observeRequests([toRecord(startRequest(tracing))])
    for (const calls of [1, 2]) {
      send()
      await until(() => onDrop.mock.calls.length === calls, 'it is refused')
    }
    expect(log.warn).toHaveBeenCalledOnce()
    status = 200
    send()
    await until(() => log.info.mock.calls.length > 0, 'it is taken')
    expect(log.info).toHaveBeenCalledExactlyOnceWith({ dropped: 2 }, expect.any(String))
  })
})

test.each([
  ['without a collector nothing of it is loaded', {}, false],
  ['with one, it is', { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:9' }, true],
])('%s', async (_, env, isLoaded) => {
  const service = useProcess(
    'test/support/fixture/main.ts',
    { DATABASE_URL: (await useDatabase()).url, ...env },
    RECORD_LOADS,
  )
  await service.url()
  expect(service.output()).toMatch(/^loads .*\/node_modules\/hono\//m)
  expect(/^loads .*\/node_modules\/@opentelemetry\/sdk-trace\//m.test(service.output())).toBe(
    isLoaded,
  )
})

const STATEMENT = {
  name: 'select item',
  text: 'select id from item',
  startedAt: 1,
  ms: 1,
  failed: false,
  session: {},
}

const openTracing = (
  endpoint: string,
  log = { info: vi.fn(), warn: vi.fn() },
  onDrop: (spans: number) => void = () => {},
) => new Tracing({ endpoint, ratio: 1, followsParent: true }, log, onDrop)

const startRequest = (tracing: Tracing) => tracing.startRequest(undefined, 0) as Trace

const toRecord = (trace: Trace): RequestRecord => ({
  method: 'GET',
  route: '/v1/items',
  status: 200,
  ms: 1,
  requestId: 'r',
  client: undefined,
  subject: undefined,
  background: false,
  hasCredentials: false,
  startedAt: Date.now(),
  statements: [],
  statementCount: 0,
  trace,
})

const logged = (output: string, message: string) =>
  output
    .split('\n')
    .filter((line) => line.includes(`"msg":"${message}"`))
    .map((line) => JSON.parse(line))

function find(
  { spans }: { spans: CollectedSpan[] },
  name: string,
  { traceId }: { traceId?: string } = {},
): CollectedSpan {
  const found = spans.find(
    (span) => span.name === name && (traceId === undefined || span.traceId === traceId),
  )
  if (!found) throw new Error(`No ${name} among ${spans.map((span) => span.name).join(', ')}`)
  return found
}

function expectWithin(inner: CollectedSpan, outer: CollectedSpan) {
  expect(inner.startedAt).toBeGreaterThanOrEqual(outer.startedAt)
  expect(inner.endedAt).toBeLessThanOrEqual(outer.endedAt)
}
