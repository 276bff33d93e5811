import type { Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { createAccount } from '../../src/access/accounts.ts'
import { createCredential } from '../../src/access/credentials.ts'
import { startFixture } from '../support/fixture/features.ts'
import { request } from '../support/service.ts'
import { until } from '../support/until.ts'
import { launchChromium } from './support/chromium.ts'
import { button, panel, untilLive, untilText } from './support/panels.ts'

const FOREVER_MS = 600_000

let service: Awaited<ReturnType<typeof startFixture>>
let browser: Awaited<ReturnType<typeof launchChromium>>
let session: string

beforeAll(async () => {
  ;[service, browser] = await Promise.all([
    startFixture({ COMPUTE_THREADS: '2', REQUEST_TIMEOUT_MS: '120000' }),
    launchChromium(),
  ])
  const db = service.database.withSignal()
  const account = { email: 'page@example.com', password_hash: null, role: 'operator' } as const
  const accountId = await createAccount(db, account)
  session = (await createCredential(db, { kind: 'session', accountId, name: 'test' })).token
})
afterAll(async () => {
  await browser.close()
  await service.close()
})

describe('a long task', () => {
  test('is an open bar on its thread, which grows until the task ends', async () => {
    const page = await open()
    const work = startWork()
    const running = await until(async () => (await shown(page)).running[0], 'it is shown')
    expect(running).toMatchObject({ task: 'work.spin', thread: expect.stringMatching(/^compute-/) })
    const first = await until(() => openPixels(page, running.thread), 'its bar is drawn')
    await until(async () => (await openPixels(page, running.thread)) > first + 20, 'it grows')
    await showLatest(page)
    await untilText(panel(page, 'threads').locator('details'), /work\.spin.*running/)
    work.stop()
    await until(async () => {
      const { spans, running } = await shown(page)
      return running.length === 0 && spans.some(({ outcome }) => outcome === 'cancelled')
    }, 'it has ended')
  })

  test('is on a page that is opened meanwhile, and on one opened after it ended', async () => {
    const work = startWork()
    const during = await open()
    await until(async () => (await shown(during)).running.length === 1, 'it is shown')
    work.stop()
    await until(async () => (await shown(during)).running.length === 0, 'it has ended')
    const [span] = (await shown(during)).spans.slice(-1)
    const after = await open()
    await until(async () => (await shown(after)).spans.length > 0, 'the past is shown')
    expect((await shown(after)).spans).toContainEqual(span)
  })
})

describe('a page', () => {
  test('shows each task once, also those of a time in which it was not connected', async () => {
    const page = await open()
    await request(`${service.url}/v1/work?ms=2`)
    await until(async () => (await shown(page)).spans.length > 0, 'a task is shown')
    await page.context().setOffline(true)
    await setHidden(page, true)
    await until(async () => (await shown(page)).gaps.length === 2, 'a gap opens')
    const headers = { 'x-request-id': 'while-away' }
    for (let n = 0; n < 3; n++)
      await request(`${service.url}/v1/work?ms=2`, 'GET', undefined, headers)
    await page.context().setOffline(false)
    await setHidden(page, false)
    const missed = async () =>
      (await shown(page)).spans.filter(({ requestId }) => requestId === 'while-away')
    await until(async () => (await missed()).length === 3, 'the missed tasks are shown')
    const { spans, gaps } = await shown(page)
    expect(new Set(spans.map(({ thread, startedAt }) => `${thread} ${startedAt}`)).size).toBe(
      spans.length,
    )
    expect(gaps).toHaveLength(1)
  })

  test('shows blocks of the event loop in a lane of its own, on top', async () => {
    const page = await open()
    await request(`${service.url}/v1/work/inline?ms=200`)
    const [block] = await until(async () => {
      const { blocks } = await shown(page)
      return blocks.length > 0 ? blocks.slice(-1) : undefined
    }, 'the block is shown')
    expect(block).toMatchObject({ thread: 'event loop' })
    expect((block?.endedAt ?? 0) - (block?.startedAt ?? 0)).toBeGreaterThan(50)
    expect(await laneNames(page)).toEqual(['event loop', 'compute-1', 'compute-2', 'queue'])
    await showLatest(page)
    await untilText(panel(page, 'threads').locator('details'), /Blocked by .*event loop/)
  })

  test('counts tasks by kind', async () => {
    const page = await open()
    const work = [startWork(), startWork(), startWork()]
    const row = panel(page, 'threads').getByRole('row', { name: /^work\.spin/ })
    const cells = async () => (await row.getByRole('cell').allTextContents()).slice(1)
    await until(async () => {
      const [, , running, queued] = await cells()
      return running === '2' && queued === '1'
    }, 'two run and one waits')
    for (const { stop } of work) stop()
    await until(async () => {
      const [done, failed, running, queued] = await cells()
      return done !== '0' && failed === '0' && running === '0' && queued === '0'
    }, 'none is left')
  })

  test('shows beside each name how busy the thread is, and its heap', async () => {
    const page = await open()
    const work = startWork()
    const notes = panel(page, 'threads').locator('.lane-names')
    await untilText(notes, /compute-\d (8|9|100)\d?(\.\d)? % · [\d.]+ MiB/)
    work.stop()
  })

  test('has a timeline that the keyboard moves', async () => {
    const page = await open()
    const surface = panel(page, 'threads').getByRole('group', { name: /^Timeline/ })
    const toolbar = panel(page, 'threads').locator('.toolbar')
    await surface.press('Home')
    await untilText(toolbar, /10 min 0 s/)
    await surface.press('+')
    await untilText(toolbar, /6 min 15 s/)
    await surface.press(' ')
    await untilText(toolbar, /Go live/)
    await surface.press('End')
    await untilText(toolbar, /Pause/)
  })

  test('passes the request of a task on to the panel of requests', async () => {
    const page = await open()
    await page.locator('html').evaluate((html) =>
      html.ownerDocument.addEventListener('offloop:request', ({ detail }: Detail) => {
        html.dataset.asked = detail.requestId
      }),
    )
    await showLatest(page)
    const headers = { 'x-request-id': 'who-asked' }
    await request(`${service.url}/v1/work?ms=2`, 'GET', undefined, headers)
    await button(panel(page, 'threads'), 'Show request who-asked').press('Enter')
    expect(await page.locator('html').getAttribute('data-asked')).toBe('who-asked')
  })
})

/** What the panel of the threads shows. */
const shown = (page: Page): Promise<Shown> =>
  panel(page, 'threads').evaluate(({ lanes: { spans, running, gaps, blocks } }) => ({
    spans,
    running,
    gaps,
    blocks,
  }))

interface Shown {
  spans: Bar[]
  running: Bar[]
  blocks: Bar[]
  gaps: { from: number; to: number }[]
}

interface Bar {
  task?: string
  thread: string
  startedAt: number
  endedAt: number
  outcome?: string
  requestId?: string
}

interface Detail {
  detail: { requestId: string }
}

/** The length of a thread's open bar, which alone is translucent. */
async function openPixels(page: Page, thread: string): Promise<number> {
  const lane = (await laneNames(page)).indexOf(thread)
  return panel(page, 'threads').evaluate((section, lane) => {
    const canvas = section.querySelector('.lanes canvas')
    const { height } = section.querySelector('.lane-names li').getBoundingClientRect()
    const y = Math.round((lane + 0.5) * height)
    const { data } = canvas.getContext('2d').getImageData(0, y, canvas.width, 1)
    return data.filter(
      (value: number, index: number) => index % 4 === 3 && value > 0 && value < 255,
    ).length
  }, lane)
}

const laneNames = async (page: Page) =>
  (await panel(page, 'threads').locator('.lane-names li').allTextContents()).map(
    (text) => text.match(/^(event loop|[\w-]+)/)?.[0],
  )

const showLatest = (page: Page) => panel(page, 'threads').locator('summary').click()

/** A request for work that does not end before it is stopped. */
function startWork() {
  const controller = new AbortController()
  const { signal } = controller
  fetch(`${service.url}/v1/work?ms=${FOREVER_MS}`, { signal }).catch(() => {})
  const stop = () => controller.abort()
  onTestFinished(stop)
  return { stop }
}

/** As if another tab were shown. */
const setHidden = (page: Page, hidden: boolean) =>
  page.locator('html').evaluate(({ ownerDocument }, hidden) => {
    Object.defineProperty(ownerDocument, 'hidden', { configurable: true, value: hidden })
    ownerDocument.dispatchEvent(new Event('visibilitychange'))
  }, hidden)

async function open(): Promise<Page> {
  const context = await browser.newContext()
  onTestFinished(() => context.close())
  await context.addCookies([{ name: 'session', value: session, url: service.url }])
  const page = await context.newPage()
  await page.goto(service.url)
  await untilLive(page)
  await until(async () => (await shown(page)).gaps[0]?.to !== Number.POSITIVE_INFINITY, 'the past')
  return page
}
