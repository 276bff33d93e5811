import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import type { OpsSample } from '../../src/ops/live-samples.ts'
import { request } from '../support/service.ts'
import { until } from '../support/until.ts'
import { DESKTOP, expectGoodLooks, SCREENSHOTS } from './support/looks.ts'
import { panel, pointsOf, untilLive, untilText } from './support/panels.ts'
import { startSite } from './support/site.ts'
import { REFUSED_WHILE_BLOCKED } from './support/trouble.ts'

let site: Awaited<ReturnType<typeof startSite>>

beforeAll(async () => {
  mkdirSync(SCREENSHOTS, { recursive: true })
  site = await startSite()
})
afterAll(() => site.close())

// feature: primes
test('a block is listed with its length, function, line and route, and its request can be looked up', async () => {
  const page = await site.open({ tolerate: [REFUSED_WHILE_BLOCKED] })
  await untilLive(page)
  const { headers } = await request(
    `${site.url}/v1/primes?to=4000000&mode=inline`,
    'GET',
    undefined,
    site.operator,
  )
  const requestId = headers.get('x-request-id') ?? ''
  const row = panel(page, 'event-loop').locator('li', { hasText: requestId })
  const [, seconds] = await untilText(
    row,
    /^\d\d:\d\d:\d\d([\d.]+) m?s\w+ \(src\/features\/primes\/\w+\.ts:\d+\)\/v1\/primes/,
  )
  expect(Number(seconds)).toBeGreaterThan(0)
  const html = page.locator('html')
  await html.evaluate((html) => {
    html.ownerDocument.addEventListener('offloop:request', ({ detail }: { detail: unknown }) => {
      html.asked = detail
    })
  })
  await row.getByRole('button', { name: `Show request ${requestId}`, exact: true }).focus()
  await page.keyboard.press('Enter')
  expect(await html.evaluate(({ asked }) => asked)).toEqual({ requestId })
})
// /feature

/** Prints each new longest CPU time between two turns of the event loop. */
const STOPWATCH = `
  import { isMainThread } from 'node:worker_threads'
  let last = process.threadCpuUsage()
  let longest = 0
  const turn = () => {
    const now = process.threadCpuUsage()
    const cpuMs = (now.user + now.system - last.user - last.system) / 1_000
    last = now
    if (cpuMs <= longest) return
    longest = cpuMs
    console.log(JSON.stringify({ cpuMs }))
  }
  process.once('SIGUSR2', () => { turn(); longest = 0; console.log('{"reset":true}') })
  if (isMainThread) setInterval(turn, 2).unref()
`

test('nothing blocks the event loop for 50 ms by itself after the start, while the page and the docs are first opened', async () => {
  // In CPU time, because a busy machine adds to any other.
  const cache = mkdtempSync(join(tmpdir(), 'offloop-cold-'))
  onTestFinished(() => rmSync(cache, { recursive: true }))
  const cold = await startSite({
    NODE_COMPILE_CACHE: cache,
    NODE_OPTIONS: `--import data:text/javascript,${encodeURIComponent(STOPWATCH)}`,
  })
  onTestFinished(() => cold.close())
  process.kill(cold.pid(), 'SIGUSR2')
  await until(() => cold.output().includes('{"reset":true}'), 'the start is not counted')
  const page = await cold.open()
  await untilLive(page)
  await until(async () => (await pointsOf(page, 'event-loop', 0, 0)).length > 3, 'samples')
  for (const path of ['/docs', '/docs/scalar.js', '/openapi.json'])
    expect((await fetch(cold.url + path)).status).toBe(200)
  const [, after = ''] = cold.output().split('{"reset":true}')
  const longest = [...after.matchAll(/"cpuMs":([\d.]+)/g)].map(([, cpuMs]) => Number(cpuMs)).at(-1)
  expect(longest).toBeGreaterThan(1)
  expect(longest).toBeLessThan(50)
})

describe('what the service says of the last ten minutes', () => {
  test('blocks that were not sampled are listed as such, and those for which there is no room are counted', async () => {
    const page = await openWith((at, age) => ({
      blocks: [
        { at: at - 900, blockedMs: 1_000 + age },
        {
          at: at - 500,
          blockedMs: 150,
          function: 'parse',
          file: 'src/a.ts',
          line: 7,
          inNativeCall: true,
        },
      ],
      blockCount: 3,
    }))
    const blocks = panel(page, 'event-loop').getByRole('region', { name: /^Blocks in the last/ })
    await untilText(blocks, /and \d+ more, not shown$/)
    const rows = await blocks.locator('li').allTextContents()
    expect(rows).toHaveLength(50)
    expect(rows[0]).toMatch(/^[\d:]{8}150 msparse \(src\/a\.ts, at or before line 7\)$/)
    expect(rows[1]).toMatch(/^[\d:]{8}1 snot sampled$/)
    await expectGoodLooks(page, 'event-loop')
  })

  test('seconds without a core are shaded, and explained only if there are any', async () => {
    const page = await openWith((_, age) => ({ withoutCoreMs: age < 20 && age > 5 ? 700 : 2 }))
    const loop = panel(page, 'event-loop')
    const entry = loop.locator('.legend li', { hasText: 'no core available' })
    await entry.waitFor()
    expect(await loop.getByText(/^Shaded: .* not counted as delay\.$/).isVisible()).toBe(true)
    await page.setViewportSize(DESKTOP)
    await loop.screenshot({ path: join(SCREENSHOTS, 'event-loop-without-core.png') })
    const other = await openWith(() => ({}))
    await untilText(panel(other, 'event-loop'), /None$/)
    await until(async () => (await pointsOf(other, 'event-loop', 0, 0)).length > 0, 'a sample')
    expect(await panel(other, 'event-loop').getByText('no core available').isVisible()).toBe(false)
  })
})

type Facts = Partial<OpsSample['loop']> & Pick<Partial<OpsSample>, 'blocks'>

/** The page of a service that has had a minute like this, and says no more; `age` is in seconds. */
async function openWith(factsAt: (at: number, age: number) => Facts): Promise<Page> {
  const page = await site.open()
  const body = await until(async () => {
    const { body } = await request(`${site.url}/v1/ops`, 'GET', undefined, site.operator)
    return body.samples.length > 0 && body
  }, 'a sample')
  await page.route('**/v1/ops', (route) => {
    const samples = Array.from({ length: 60 }, (_, index) => {
      const age = 60 - index
      const at = Date.now() - age * 1_000
      const { blocks = [], ...loop } = factsAt(at, age)
      const last = body.samples.at(-1)
      return {
        ...last,
        at,
        blocks,
        loop: { ...last.loop, blockCount: 0, withoutCoreMs: 0, ...loop },
      }
    })
    return route.fulfill({ json: { ...body, samples } })
  })
  await page.routeWebSocket(/socket\.io/, (socket) => {
    const server = socket.connectToServer()
    server.onMessage((message) => {
      if (!String(message).includes('ops.sample')) socket.send(message)
    })
  })
  await page.reload()
  await untilLive(page)
  return page
}
