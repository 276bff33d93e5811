// feature: products, primes, mandelbrot, reports
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Locator, Page } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { accept } from '../support/reports.ts'
import { newSlowCsv } from './support/new-slow-csv.ts'
import { button, panel, untilLive, untilText } from './support/panels.ts'
import { startSite } from './support/site.ts'
import { REFUSED_WHILE_BLOCKED } from './support/trouble.ts'

const AXE = readFileSync(fileURLToPath(import.meta.resolve('axe-core/axe.min.js')), 'utf8')
/** Its `readme.png` becomes `docs/live-page.png`. */
const SCREENSHOTS = join(import.meta.dirname, 'screenshots')
const DESKTOP = { width: 1_360, height: 1_000 }
/** The event loop, what to try, and the threads. */
const UPPER_PART = { x: 0, y: 0, width: DESKTOP.width, height: 838 }
const PHONE = { width: 390, height: 844 }

let site: Awaited<ReturnType<typeof startSite>>

beforeAll(async () => {
  mkdirSync(SCREENSHOTS, { recursive: true })
  site = await startSite()
})
afterAll(() => site.close())

const LOOKS = [
  { name: 'light', colorScheme: 'light', viewport: DESKTOP },
  { name: 'dark', colorScheme: 'dark', viewport: DESKTOP },
  { name: 'phone', colorScheme: 'light', viewport: PHONE },
] as const

test('in light, dark and on a phone axe finds nothing serious, and nothing is wider than the screen', {
  timeout: 60_000,
}, async () => {
  const page = await site.open({
    reducedMotion: 'reduce',
    viewport: DESKTOP,
    tolerate: [REFUSED_WHILE_BLOCKED],
  })
  await untilLive(page)
  await useEverything(page)
  await page.screenshot({ path: join(SCREENSHOTS, 'readme.png'), fullPage: true, clip: UPPER_PART })
  for (const { name, colorScheme, viewport } of LOOKS) {
    await page.emulateMedia({ colorScheme })
    await page.setViewportSize(viewport)
    await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`), fullPage: true })
    expect(await seriousIssues(page), name).toEqual([])
    const [needed, given] = await page
      .locator('html')
      .evaluate(({ scrollWidth, clientWidth }) => [scrollWidth, clientWidth])
    expect(needed, name).toBeLessThanOrEqual(given)
  }
})

test('the keyboard reaches everything that can be used', async () => {
  const page = await site.open()
  await untilLive(page)
  const html = page.locator('html')
  const count = await html.evaluate((html) => {
    const candidates = html.querySelectorAll(
      'a[href], button, input, select, summary, [tabindex="0"]',
    )
    html.usable = [...candidates].filter(
      (element) => element.checkVisibility() && !element.matches(':disabled'),
    )
    html.reached = new Set()
    html.addEventListener('focusin', ({ target }: { target: unknown }) => html.reached.add(target))
    return html.usable.length
  })
  expect(count).toBeGreaterThan(15)
  for (let press = 0; press < count + 10; press++) await page.keyboard.press('Tab')
  // A row of a list may be gone by now.
  const missed = await html.evaluate(({ usable, reached }) =>
    usable
      .filter((element: { isConnected: boolean }) => element.isConnected && !reached.has(element))
      .map(({ outerHTML }: { outerHTML: string }) => outerHTML),
  )
  expect(missed).toEqual([])
})

/**
 * So that there is something to see: threads and loop were busy, one job failed, one was done, and
 * one still runs.
 */
async function useEverything(page: Page) {
  const [tryIt, reports, products, picture] = ['primes', 'reports', 'products', 'mandelbrot'].map(
    (id) => panel(page, id),
  ) as Four
  await accept(site.url, 'a,b\n1,2\n', { query: '?groupBy=colour' })
  for (const where of ['On worker threads', 'On the event loop', 'On worker threads']) {
    await button(tryIt, where).click()
    await untilText(tryIt.getByRole('status'), /^Counted/, 20_000)
  }
  await button(reports, 'Take an example').click()
  await button(reports, 'Summarise').click()
  await zoomInto(picture, 0.4736, 0.4533)
  await untilText(picture, /3 ×/)
  await zoomInto(picture, 0.45, 0.3)
  await untilText(picture, /9 ×/)
  await button(products, 'Restock 20').click()
  await untilText(reports.getByRole('status'), /^Done$/, 20_000)
  await accept(site.url, newSlowCsv())
  await untilText(panel(page, 'jobs'), /running/)
}

type Four = [Locator, Locator, Locator, Locator]

async function zoomInto(picture: Locator, right: number, down: number) {
  const { width, height } =
    (await picture.locator('.picture').boundingBox()) ?? expect.unreachable()
  await picture.locator('.picture').click({ position: { x: right * width, y: down * height } })
}

/**
 * What axe calls serious or critical. It comes as the debugger's script, which the page's policy
 * does not concern.
 */
async function seriousIssues(page: Page): Promise<string[]> {
  const session = await page.context().newCDPSession(page)
  await session.send('Runtime.evaluate', { expression: AXE })
  const violations: Violation[] = await page
    .locator('html')
    .evaluate(async (html) => (await html.ownerDocument.defaultView.axe.run()).violations)
  return violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .flatMap(({ id, help, nodes }) =>
      nodes.map(({ html, failureSummary }) => `${id}: ${help}: ${html} ${failureSummary}`),
    )
}

interface Violation {
  id: string
  impact: string
  help: string
  nodes: { html: string; failureSummary: string }[]
}
