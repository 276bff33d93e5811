import type { Locator, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { request } from '../support/service.ts'
import { until } from '../support/until.ts'
import { button, panel, untilLive, untilText } from './support/panels.ts'
import { startSite } from './support/site.ts'

const SOON_MS = 2_000

let site: Awaited<ReturnType<typeof startSite>>
let accounts = 0

beforeAll(async () => {
  site = await startSite()
})
afterAll(() => site.close())

async function openHttp() {
  const page = await site.open()
  await untilLive(page)
  const http = panel(page, 'http')
  return {
    page,
    http,
    log: http.getByRole('region', { name: 'Latest requests' }),
    filter: http.getByRole('searchbox', { name: /^Filter the latest requests/ }),
  }
}

/** Makes an account, which takes SQL statements and a task that hashes its password. */
async function signUp() {
  const email = `somebody-${++accounts}@example.com`
  const { status, headers } = await request(
    `${site.url}/v1/accounts`,
    'POST',
    { email, password: 'A password of some length' },
    { 'sec-fetch-site': 'same-origin' },
  )
  expect(status).toBe(201)
  return headers.get('x-request-id') ?? ''
}

const rowOf = (log: Locator, requestId: string) => log.locator(`[data-request="${requestId}"]`)

const untilVisible = (locator: Locator, timeoutMs?: number) =>
  until(() => locator.isVisible(), `${locator} is visible`, timeoutMs)

const shownRows = (log: Locator) =>
  log
    .locator('tbody:visible [data-request]')
    .evaluateAll((rows) => rows.map(({ dataset }) => dataset['request']))

describe('the log of requests', () => {
  test('shows a request within two seconds, and by the keyboard what it did', async () => {
    const { http, log } = await openHttp()
    const requestId = await signUp()
    const row = rowOf(log, requestId)
    await untilVisible(row, SOON_MS)
    await untilText(row, /POST \/v1\/accounts201[\d.]+ m?s\d+account:\d+/)
    const open = row.getByRole('button', { name: `POST /v1/accounts, request ${requestId}` })
    await open.press('Enter')
    expect(await open.getAttribute('aria-expanded')).toBe('true')
    const details = log.locator('.details')
    await untilText(details, /insert into account .*values \(\?, .*[\d.]+ m?s/)
    await untilText(details, /password\.hash.*ran [\d.]+ m?s, waited .*, succeeded/)
    await untilText(details, /Jobs it enqueuedNone/)
    await open.press('Enter')
    expect(await details.count()).toBe(0)
    await untilText(
      http.getByRole('region', { name: 'Routes in the last minute' }),
      /POST \/v1\/accounts/,
    )
    await untilText(
      http.getByRole('region', { name: 'SQL statements in the last ten minutes' }),
      /insert into account/,
    )
  })

  test('is filtered by route, status, caller and request id', async () => {
    const { log, filter } = await openHttp()
    const signedUp = await signUp()
    const missing = await request(`${site.url}/v1/nowhere`)
    const missingId = missing.headers.get('x-request-id') ?? ''
    await untilVisible(rowOf(log, signedUp))
    await untilVisible(rowOf(log, missingId))
    for (const [text, shown, hidden] of [
      ['404', missingId, signedUp],
      ['4xx', missingId, signedUp],
      ['POST accounts', signedUp, missingId],
      [signedUp, signedUp, missingId],
    ] as const) {
      await filter.fill(text)
      const rows = await shownRows(log)
      expect([rows.includes(shown), rows.includes(hidden)], text).toEqual([true, false])
    }
    await filter.fill('there is no such request')
    await untilText(log, /No request matches the filter\.$/)
  })

  test('shows twenty, and all on demand', async () => {
    const { http, log, filter } = await openHttp()
    const last = await Promise.all(
      Array.from({ length: 30 }, () => request(`${site.url}/v1/thirty`)),
    )
    await filter.fill('no such route')
    await until(async () => (await shownRows(log)).length === 20, 'twenty are shown')
    const expand = http.getByRole('button', { name: /^Show all \d+ requests$/ })
    await until(async () => /[3-9]\d/.test((await expand.textContent()) ?? ''), 'all have come')
    await expand.press('Enter')
    expect(await expand.isVisible()).toBe(false)
    // Some may have come later than others.
    await until(async () => {
      const rows = await shownRows(log)
      return last.every(({ headers }) => rows.includes(headers.get('x-request-id')))
    }, 'all are shown')
  })

  test('keeps the row that has the focus, however many come', async () => {
    const { log } = await openHttp()
    const row = rowOf(log, await signUp())
    await untilVisible(row)
    await row.getByRole('button').focus()
    const later = await Promise.all(
      Array.from({ length: 30 }, () => request(`${site.url}/v1/thirty`)),
    )
    const last = later.at(-1)?.headers.get('x-request-id') ?? ''
    await until(async () => (await rowOf(log, last).count()) === 1, 'they have come')
    expect(await row.getByRole('button').evaluate((button) => button.matches(':focus'))).toBe(true)
  })

  test('stands still while it is paused', async () => {
    const { http, log } = await openHttp()
    const pause = button(http, 'Pause the latest requests')
    await pause.click()
    const requestId = await signUp()
    await untilText(http, /\d+ new while paused/)
    expect(await rowOf(log, requestId).count()).toBe(0)
    await pause.click()
    await untilVisible(rowOf(log, requestId))
  })

  test('opens and focuses the request that another panel names', async () => {
    const { page, http, log } = await openHttp()
    const requestId = await signUp()
    await untilVisible(rowOf(log, requestId))
    await show(page, requestId)
    const open = rowOf(log, requestId).getByRole('button')
    await until(() => open.evaluate((button) => button.matches(':focus')), 'it has the focus')
    await untilText(log.locator('.details'), /insert into account/)
    await show(page, 'unknown')
    await untilText(http.getByRole('status'), /^Request unknown is not among the latest 200$/)
  })

  const show = (page: Page, requestId: string) =>
    page
      .locator('html')
      .evaluate(
        ({ ownerDocument }, requestId) =>
          ownerDocument.dispatchEvent(
            new CustomEvent('offloop:request', { detail: { requestId } }),
          ),
        requestId,
      )
})

describe('the access log', () => {
  test.each(['pretty', 'json'])(
    'in %s has no line for an open page, its polling or a reconnect',
    { timeout: 60_000 },
    async (format) => {
      const site = await startSite({ LOG_FORMAT: format, LOG_LEVEL: 'info' })
      onTestFinished(() => site.close())
      const pages: Page[] = []
      for (const as of ['operator', 'member', 'nobody'] as const) {
        const page = await site.open({ as, tolerate: [/status of 401/, /ERR_|closed before/] })
        await untilLive(page)
        await page.reload()
        await untilLive(page)
        pages.push(page)
      }
      const made = await countRequests(site.opsUrl)
      await until(async () => (await countRequests(site.opsUrl)) > made + 10, 'they poll')
      expect(accessLog(site.output())).toEqual([])
      await site.kill()
      for (const page of pages) await untilText(page.locator('#connection'), /^Connection lost/)
      await site.start()
      for (const page of pages) await untilLive(page)
      await untilText(panel(pages[0] as Page, 'http'), /HEAD \//)
      expect(accessLog(site.output())).toEqual([])
      await request(`${site.url}/v1/nowhere`)
      await until(() => accessLog(site.output()).length === 1, 'a user makes a line')
    },
  )
})

const accessLog = (output: string) =>
  output.split('\n').filter((line) => line.includes('"method":'))

/** How many requests the service has answered, by its metrics. */
async function countRequests(opsUrl: string): Promise<number> {
  const page = await (await fetch(`${opsUrl}/metrics`)).text()
  const counts = page.matchAll(/^http_request_duration_seconds_count\{.*\} (\d+)$/gm)
  return counts.reduce((sum, [, count]) => sum + Number(count), 0)
}
