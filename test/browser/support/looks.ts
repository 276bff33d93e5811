import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Page } from 'playwright-core'
import { expect } from 'vitest'

const AXE = readFileSync(fileURLToPath(import.meta.resolve('axe-core/axe.min.js')), 'utf8')
export const SCREENSHOTS = join(import.meta.dirname, '../screenshots')
export const DESKTOP = { width: 1_360, height: 1_000 }
const PHONE = { width: 390, height: 844 }

const LOOKS = [
  { look: 'light', colorScheme: 'light', viewport: DESKTOP },
  { look: 'dark', colorScheme: 'dark', viewport: DESKTOP },
  { look: 'phone', colorScheme: 'light', viewport: PHONE },
] as const

/**
 * Expects that axe finds nothing serious in light, dark and on a phone, and that nothing is wider
 * than the screen. Keeps screenshots for people.
 */
export async function expectGoodLooks(page: Page, state: string): Promise<void> {
  mkdirSync(SCREENSHOTS, { recursive: true })
  for (const { look, colorScheme, viewport } of LOOKS) {
    const name = `${state}-${look}`
    await page.emulateMedia({ colorScheme })
    await page.setViewportSize(viewport)
    await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`), fullPage: true })
    expect(await seriousIssues(page), name).toEqual([])
    const [needed, given] = await page
      .locator('html')
      .evaluate(({ scrollWidth, clientWidth }) => [scrollWidth, clientWidth])
    expect(needed, name).toBeLessThanOrEqual(given)
  }
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
