import type { Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { useProcess } from '../support/process.ts'
import { request } from '../support/service.ts'
import { until } from '../support/until.ts'
import { hasValkey, useValkey } from '../support/valkey.ts'
import { expectGoodLooks } from './support/looks.ts'
import { panel, untilLive, untilText } from './support/panels.ts'
import { startSite } from './support/site.ts'
import { NOBODY_ANSWERS } from './support/trouble.ts'

let site: Awaited<ReturnType<typeof startSite>>

beforeAll(async () => {
  site = await startSite()
})
afterAll(() => site.close())

describe('a page of one process', () => {
  test('shows its lanes, and nothing of processes', async () => {
    const page = await site.open()
    await untilLive(page)
    await until(async () => (await names(page)).length > 3, 'its lanes')
    await until(() => hasListed(page), 'the processes are listed')
    expect(await names(page)).toEqual(['event loop', 'compute-1', 'compute-2', 'queue'])
    expect(await panel(page, 'threads').locator('.totals').isVisible()).toBe(false)
  })
})

describe('a page of several processes', () => {
  test('shows the lanes of each, the load of all, and which was killed', async () => {
    const page = await site.open({ init: KEEP_SOCKETS })
    await untilLive(page)
    const threads = panel(page, 'threads')
    const { worker, own, other } = await startWorker()
    await untilText(threads.locator('.totals'), /^2 processes · \d of 3 threads busy/)
    await until(
      async () => (await names(page)).join() === [own, ...LANES, other, ...EMPTY].join(),
      'a group for each',
    )

    await hear(page, other)
    await until(
      async () => (await names(page)).join() === [own, ...LANES, other, ...LANES].join(),
      'the lanes of the other',
    )
    await threads.locator('summary').click()
    await untilText(threads.locator('details'), new RegExp(`far\\.task${toName(other)} compute-1`))

    await threads.getByLabel('Charts and figures of').selectOption({ index: 1 })
    await untilText(panel(page, 'event-loop'), new RegExp(`${toName(other)} · 42 % busy`))
    await untilText(panel(page, 'process'), /Requests per second12,345/)
    await untilText(panel(page, 'process'), new RegExp(`${toName(other)} · Up for`))
    await untilText(panel(page, 'http'), new RegExp(`those of ${toName(other)}`))
    await expectGoodLooks(page, 'processes')

    worker.child.kill('SIGKILL')
    await untilText(threads.locator('.totals'), /^1 process · .* · 1 dead/, 60_000)
    await untilText(threads.locator('.lane-names .title').last(), /dead since \d\d:\d\d:\d\d$/)
    expect(await names(page)).toEqual([own, ...LANES, other, ...LANES])
  })

  test('forgets one that was stopped', async () => {
    const page = await site.open()
    const { worker, other } = await startWorker()
    await until(async () => (await names(page)).includes(other), 'it is shown')
    worker.child.kill('SIGTERM')
    await until(async () => !(await names(page)).includes(other), 'it is gone', 60_000)
  })
})

describe.runIf(hasValkey)('processes that share a Valkey', () => {
  test('are all heard by the page, and a restarted one goes on where it was', {
    timeout: 180_000,
  }, async () => {
    const { url: VALKEY_URL } = await useValkey()
    const shared = await startSite({ VALKEY_URL })
    onTestFinished(() => shared.close())
    const page = await shared.open({ tolerate: [NOBODY_ANSWERS] })
    await untilLive(page)
    const { other } = await startWorker(shared, { VALKEY_URL, COMPUTE_THREADS: '1' })
    const expected = [...LANES, other, 'event loop', 'compute-1', 'queue']
    const hasAll = async () => (await names(page)).slice(1).join() === expected.join()
    await until(hasAll, 'the lanes of both')

    const [before] = await names(page)
    await shared.kill()
    await untilText(page.locator('#connection'), /^Connection lost/)
    await shared.start()
    await untilLive(page)
    await until(async () => (await names(page))[0] !== before && (await hasAll()), 'two again')
    expect(await panel(page, 'threads').locator('.totals').textContent()).not.toContain('dead')
  })
})

const EMPTY = ['event loop', 'queue']
const LANES = ['event loop', 'compute-1', 'compute-2', 'queue']

/** A worker on the database of the site, and the ids of both. */
async function startWorker({ databaseUrl, url, operator } = site, env: NodeJS.ProcessEnv = {}) {
  const settings = { DATABASE_URL: databaseUrl, ROLE: 'worker', ...env }
  const worker = useProcess('src/main.ts', settings)
  const path = `${url}/v1/ops/processes`
  const { processes } = await until(async () => {
    const { body } = await request(path, 'GET', undefined, operator)
    return body.totals.alive === 2 && body.processes[1].load && body
  }, 'it is listed with its load')
  return { worker, own: processes[0].id, other: processes[1].id }
}

/** The ids of the groups, and the names of their lanes. */
const names = (page: Page): Promise<string[]> =>
  panel(page, 'threads')
    .locator('.lane-names li')
    .evaluateAll((rows) =>
      rows.map(({ dataset, firstChild }) => dataset.process ?? firstChild.textContent),
    )

const toName = (id: string) => id.split(':').slice(0, 2).join(':')

const hasListed = (page: Page) =>
  page.evaluate(
    `performance.getEntriesByType('resource').some(({ name }) => name.endsWith('/processes'))`,
  )

const KEEP_SOCKETS = `window.sockets = []
window.WebSocket = class extends WebSocket {
  constructor(...options) {
    super(...options)
    sockets.push(this)
  }
}`

/** Has the page hear of a task and a second of another process. */
async function hear(page: Page, process: string) {
  const { body } = await request(`${site.url}/v1/ops`, 'GET', undefined, site.operator)
  const { loop, ...sample } = body.samples.at(-1)
  const at = sample.at - 1_000
  const task = { task: 'far.task', thread: 'compute-1', startedAt: at, endedAt: at + 500 }
  const span = { ...task, queuedMs: 1, runMs: 500, outcome: 'succeeded', count: 1 }
  const second = { loop: { ...loop, utilization: 0.42 }, http: { requestsPerSecond: 12_345 } }
  for (const event of [
    ['ops.sample', { process, ...sample, ...second }],
    ['ops.spans', { process, number: 1, spans: [span], leftOut: 0, running: [] }],
  ]) {
    const data = JSON.stringify(`42${JSON.stringify(event)}`)
    await page.evaluate(
      `sockets.at(-1).dispatchEvent(new MessageEvent('message', { data: ${data} }))`,
    )
  }
}
