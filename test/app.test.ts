import { setImmediate as nextTurn } from 'node:timers/promises'
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from 'vitest'
import { createApp } from '../src/app.ts'
import { features } from '../src/features/index.ts'
import { listAccess } from '../src/http/router.ts'
import { openDeps } from './support/app.ts'
import { fixtureFeatures } from './support/fixture/features.ts'

let opened: Awaited<ReturnType<typeof openDeps>>

beforeAll(async () => {
  opened = await openDeps()
})
afterAll(() => opened.close())

test('createApp leaves no timer, handle or query behind', async () => {
  const { database } = opened.deps
  const timers = (['setTimeout', 'setInterval', 'setImmediate'] as const).map((name) =>
    vi.spyOn(globalThis, name),
  )
  const queries = [
    vi.spyOn(database, 'withSignal'),
    vi.spyOn(database, 'ping'),
    vi.spyOn(database.semaphore, 'acquire'),
  ]
  onTestFinished(() => void vi.restoreAllMocks())
  const before = process.getActiveResourcesInfo().toSorted()
  const app = createApp(opened.deps, [...features, ...fixtureFeatures])
  expect(process.getActiveResourcesInfo().toSorted()).toEqual(before)
  for (const timer of timers) expect(timer).not.toHaveBeenCalled()
  // Includes what it would have started asynchronously.
  for (let turn = 0; turn < 10; turn++) await nextTurn()
  for (const query of queries) expect(query).not.toHaveBeenCalled()

  expect((await app.request('/v1/items')).status).toBe(200)
  for (const query of [queries[0], queries[2]]) expect(query).toHaveBeenCalledOnce()
})

test('each route says who may call it, and only these are public besides the files of the page', () => {
  const app = createApp(opened.deps, features)
  const routes = listAccess(app).filter(({ path }) => !/^\/$|\.(js|css)$/.test(path))
  const byAccess = Object.groupBy(routes, ({ access }) => access)
  const names = Object.entries(byAccess).map(([access, all]) => [
    access,
    all.map(({ method, path }) => `${method} ${path}`),
  ])
  expect(Object.fromEntries(names)).toEqual({
    public: [
      // feature: products
      'GET /v1/products',
      'GET /v1/products/:id',
      // /feature
      // feature: primes
      'GET /v1/primes',
      // /feature
      // feature: mandelbrot
      'GET /v1/mandelbrot.png',
      // /feature
      'POST /v1/accounts',
      'POST /v1/sessions',
      'GET /openapi.json',
      'GET /docs',
    ],
    // feature: products
    'products:write': ['POST /v1/products', 'PATCH /v1/products/:id', 'DELETE /v1/products/:id'],
    // /feature
    // feature: reports
    'reports:write': ['POST /v1/reports', 'DELETE /v1/reports/:id'],
    'reports:read': ['GET /v1/reports', 'GET /v1/reports/:id', 'GET /v1/reports/:id/events'],
    // /feature
    operate: [
      'GET /v1/jobs',
      'GET /v1/jobs/counts',
      'GET /v1/jobs/kinds',
      'GET /v1/jobs/schedules',
      'GET /v1/jobs/queues',
      'POST /v1/jobs/queues/:queue/pause',
      'POST /v1/jobs/queues/:queue/resume',
      'POST /v1/jobs/schedules/:name/run',
      'POST /v1/jobs/schedules/:name/pause',
      'POST /v1/jobs/schedules/:name/resume',
      'POST /v1/jobs/retry',
      'POST /v1/jobs/cancel',
      'GET /v1/jobs/:id',
      'POST /v1/jobs/:id/retry',
      'DELETE /v1/jobs/:id',
      'GET /v1/ops',
      'GET /v1/ops/spans',
      'GET /v1/ops/processes',
      'POST /v1/ops/profiles',
      'DELETE /v1/ops/profiles/current',
      'GET /v1/ops/heap',
      'POST /v1/ops/heap-snapshot',
      'GET /v1/ops/requests',
    ],
    account: [
      'GET /v1/accounts/me',
      'PUT /v1/accounts/me/password',
      'GET /v1/sessions',
      'DELETE /v1/sessions',
      'DELETE /v1/sessions/:id',
      'POST /v1/keys',
      'GET /v1/keys',
      'DELETE /v1/keys/:id',
    ],
  })
})
