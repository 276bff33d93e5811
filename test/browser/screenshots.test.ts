import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { BrowserContextOptions, Page } from 'playwright-core'
import { afterAll, beforeAll, test } from 'vitest'
import { accept, slowCsv } from '../support/reports.ts'
import { until } from '../support/until.ts'
import { button, panel, pointsOf, untilLive, untilText } from './support/panels.ts'
import { startSite } from './support/site.ts'

const FOLDER = join(import.meta.dirname, 'screenshots')
const DESKTOP = { viewport: { width: 1_360, height: 1_000 } }
const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true }

let site: Awaited<ReturnType<typeof startSite>>

beforeAll(async () => {
  mkdirSync(FOLDER, { recursive: true })
  site = await startSite()
})
afterAll(() => site.close())

test.each([
  ['light', { ...DESKTOP, colorScheme: 'light' }],
  ['dark', { ...DESKTOP, colorScheme: 'dark' }],
  ['phone', { ...PHONE, colorScheme: 'light' }],
] as [string, BrowserContextOptions][])('%s, with something to see in every panel', async (name, options) => {
  const page = await site.open({ ...options, reducedMotion: 'reduce' })
  await untilLive(page)
  await work(page)
  await page.screenshot({ path: join(FOLDER, `${name}.png`), fullPage: true })
})

/** Uses everything once: threads and the loop are busy, a job fails, one succeeds, and one still runs. */
async function work(page: Page) {
  const [tryIt, reports, products] = ['try', 'reports', 'products'].map((id) => panel(page, id)) as [never, never, never]
  await accept(site.url, 'a,b\n1,2\n', { query: '?groupBy=colour' })
  await until(async () => (await pointsOf(page, 'try', 0, 0)).length >= 10, 'the probe measures')
  for (const where of ['On worker threads', 'On the event loop', 'On worker threads']) {
    await button(tryIt, where).click()
    await untilText(panel(page, 'try').getByRole('status'), /^Counted/)
  }
  await button(reports, 'Take an example').click()
  await button(reports, 'Summarise').click()
  for (let time = 0; time < 3; time++) await button(products, 'Restock 20').click()
  await untilText(panel(page, 'reports').getByRole('status'), /^Done$/, 20_000)
  await panel(page, 'mandelbrot')
    .locator('.picture')
    .click({ position: { x: 210, y: 90 } })
  await untilText(panel(page, 'mandelbrot'), /3 ×/)
  await button(tryIt, 'On worker threads').click()
  await untilText(panel(page, 'try').getByRole('status'), /^Counted/)
  await accept(site.url, slowCsv(30))
  await untilText(panel(page, 'jobs'), /running\s*[1-9]\d? %/)
}
