import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import type { BrowserContextOptions, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { button, panel, untilLive, untilText } from './support/panels.ts'
import { startSite } from './support/site.ts'

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true }

const LOOKS: [string, BrowserContextOptions][] = [
  ['light', { colorScheme: 'light' }],
  ['dark', { colorScheme: 'dark' }],
  ['a phone', PHONE],
]

let site: Awaited<ReturnType<typeof startSite>>

beforeAll(async () => {
  site = await startSite()
})
afterAll(() => site.close())

/** With something in every panel. */
async function openFilled(options: BrowserContextOptions = {}) {
  const page = await site.open({ reducedMotion: 'reduce', ...options })
  await untilLive(page)
  await button(panel(page, 'try'), 'On worker threads').click()
  const reports = panel(page, 'reports')
  await button(reports, 'Take an example').click()
  await button(reports, 'Summarise').click()
  await untilText(reports.getByRole('status'), /^Done$/, 20_000)
  await untilText(panel(page, 'jobs'), /report\.build/)
  await untilText(panel(page, 'try').getByRole('status'), /^Counted/)
  return page
}

describe.each(LOOKS)('in %s', (_, options) => {
  test('axe finds nothing serious, and nothing is wider than the screen', async () => {
    const page = await openFilled(options)
    expect(await seriousIssues(page)).toEqual([])
    const [needed, given] = await page.locator('html').evaluate(({ scrollWidth, clientWidth }) => [scrollWidth, clientWidth])
    expect(needed).toBeLessThanOrEqual(given)
  })
})

test('the keyboard reaches everything that can be used', async () => {
  const page = await openFilled()
  const html = page.locator('html')
  const count = await html.evaluate((html) => {
    const candidates = html.querySelectorAll('a[href], button, input, select, summary, [tabindex="0"]')
    html.usable = [...candidates].filter((element) => element.checkVisibility() && !element.matches(':disabled'))
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

/** What axe calls serious or critical. It comes as the debugger's script, which the page's policy does not concern. */
async function seriousIssues(page: Page): Promise<string[]> {
  const session = await page.context().newCDPSession(page)
  await session.send('Runtime.evaluate', { expression: AXE })
  const violations: Violation[] = await page
    .locator('html')
    .evaluate(async (html) => (await html.ownerDocument.defaultView.axe.run()).violations)
  return violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .flatMap(({ id, help, nodes }) => nodes.map(({ html, failureSummary }) => `${id}: ${help}: ${html} ${failureSummary}`))
}

interface Violation {
  id: string
  impact: string
  help: string
  nodes: { html: string; failureSummary: string }[]
}
