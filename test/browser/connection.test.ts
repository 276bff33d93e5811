import type { Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { until } from '../support/until.ts'
import { hasValkey, useValkey } from '../support/valkey.ts'
import { expectGoodLooks } from './support/looks.ts'
import { button, panel, untilLive, untilText } from './support/panels.ts'
import { startSite } from './support/site.ts'
import { NOBODY_ANSWERS } from './support/trouble.ts'

const HOURS = 8
/** Comes 25 s after the page was opened, whatever it shows. */
const PING = '2'

let site: Awaited<ReturnType<typeof startSite>>

beforeAll(async () => {
  site = await startSite()
})
afterAll(() => site.close())

describe('while the connection is lost', () => {
  test('the page says since when, dims what is old, and forgets the errors of the outage after it', {
    timeout: 120_000,
  }, async () => {
    const page = await site.open({
      as: 'nobody',
      reducedMotion: 'reduce',
      tolerate: [NOBODY_ANSWERS, /status of 401/],
    })
    await untilLive(page)
    const dimmed = () => page.locator('main[data-state="offline"]').count()
    expect(await dimmed()).toBe(0)
    const connection = page.locator('#connection')
    await site.kill()
    const [, since] = await untilText(
      connection,
      /^Connection lost since (\d\d:\d\d:\d\d), retrying$/,
    )
    expect(await dimmed()).toBe(1)

    const form = panel(page, 'sign-in')
    await form.getByLabel('E-mail').fill('nobody@example.com')
    await form.getByLabel('Password').fill('wrong')
    await button(form, 'Sign in').click()
    const alert = form.getByRole('alert')
    await untilText(alert, /^The service cannot be reached$/)
    await expectGoodLooks(page, 'offline')
    expect(await connection.textContent()).toContain(since)

    await site.start()
    await untilLive(page)
    await untilText(alert, /^$/)
    expect(await dimmed()).toBe(0)
  })
})

test.runIf(hasValkey)(
  'when Valkey is back, the page reads again what it may have missed',
  async () => {
    const valkey = await useValkey()
    const shared = await startSite({ VALKEY_URL: valkey.url })
    onTestFinished(() => shared.close())
    const page = await shared.open()
    let isTold = false
    let reads = 0
    page.on('websocket', (socket) =>
      socket.on('framereceived', ({ payload }) => {
        isTold ||= String(payload).includes('server.resync')
      }),
    )
    page.on('request', (request) => {
      if (isTold && request.url().endsWith('/v1/ops')) reads++
    })
    await page.reload()
    await untilLive(page)
    expect(isTold).toBe(false)
    await valkey.restart()
    await until(() => reads > 0, 'it reads again')
    await untilLive(page)
  },
)

describe('a hidden tab', () => {
  test('asks for nothing and hears of nothing; shown again, it does both', async () => {
    const page = await site.open()
    await untilText(panel(page, 'light-request'), /now\d/)
    let traffic = 0
    page.on('request', () => traffic++)
    page.on('websocket', (socket) =>
      socket.on('framereceived', ({ payload }) => {
        if (payload !== PING) traffic++
      }),
    )
    await page.reload()
    await untilText(panel(page, 'light-request'), /\d of 2/)
    await setHidden(page, true)
    await untilText(page.locator('#connection'), /^Paused$/)
    // What was under way may still arrive.
    await untilSampled(3)
    traffic = 0
    await untilSampled(4)
    expect(traffic).toBe(0)
    await setHidden(page, false)
    await untilLive(page)
    await until(() => traffic > 5, 'it reads and hears again')
  })
})

describe('hours of samples', () => {
  test('leave the memory of the page as it was', { timeout: 180_000 }, async () => {
    const page = await site.open({ init: KEEP_SOCKETS })
    await untilText(panel(page, 'light-request'), /\d of 2/)
    const { process, samples } = await readOps()
    const sample = { process, ...samples.at(-1) }
    const from = Date.now()
    const hear = (first: number, count: number) =>
      page.evaluate(`(${HEAR})(${JSON.stringify({ sample, from: from + first * 1_000, count })})`)
    // By then all that is kept of the past is full.
    await hear(0, 1_800)
    const before = await heapMiB(page)
    await hear(1_800, HOURS * 3_600)
    await untilText(panel(page, 'light-request'), new RegExp(`busy, ${HOURS},000 queued`))
    expect(await heapMiB(page)).toBeLessThan(before + 2)
  })
})

/** How a page sees that its tab is hidden or shown. */
const setHidden = (page: Page, isHidden: boolean) =>
  page.evaluate(`Object.defineProperty(document, 'hidden', { value: ${isHidden}, configurable: true })
    document.dispatchEvent(new Event('visibilitychange'))`)

interface Ops {
  process: string
  samples: { at: number }[]
}

async function readOps(): Promise<Ops> {
  const response = await fetch(`${site.url}/v1/ops`, { headers: site.operator })
  return (await response.json()) as Ops
}

/** Resolves when the service has sampled that many more seconds. */
async function untilSampled(seconds: number) {
  const newest = async () => (await readOps()).samples.at(-1)?.at ?? 0
  const from = await newest()
  await until(async () => (await newest()) >= from + seconds * 1_000 - 500, `${seconds} s are over`)
}

const KEEP_SOCKETS = `window.sockets = []
window.WebSocket = class extends WebSocket {
  constructor(...options) {
    super(...options)
    sockets.push(this)
  }
}`

/**
 * Has the page hear of one second after the other, with some frames to draw in between, and of many
 * queued tasks in the last one.
 */
const HEAR = `async ({ sample, from, count }) => {
  const socket = sockets.at(-1)
  for (let second = 0; second < count; second++) {
    const isLast = second === count - 1
    const heard = {
      ...sample,
      at: from + second * 1_000,
      compute: { ...sample.compute, queued: isLast ? ${HOURS * 1_000} : 0 },
    }
    const data = '42' + JSON.stringify(['ops.sample', heard])
    socket.dispatchEvent(new MessageEvent('message', { data }))
    if (second % 60 === 0) await new Promise(requestAnimationFrame)
  }
}`

/** The heap in use after a garbage collection. */
async function heapMiB(page: Page) {
  const session = await page.context().newCDPSession(page)
  await session.send('HeapProfiler.collectGarbage')
  const { usedSize } = await session.send('Runtime.getHeapUsage')
  return usedSize / 1024 ** 2
}
