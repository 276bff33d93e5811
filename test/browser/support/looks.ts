import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { CDPSession, Page } from 'playwright-core'
import { expect } from 'vitest'

const AXE = readFileSync(fileURLToPath(import.meta.resolve('axe-core/axe.min.js')), 'utf8')
export const SCREENSHOTS = join(import.meta.dirname, '../screenshots')
export const DESKTOP = { width: 1_440, height: 900 }
const PHONE = { width: 390, height: 844 }

const LOOKS = [
  { look: 'light', media: { colorScheme: 'light', forcedColors: 'none' }, viewport: DESKTOP },
  { look: 'dark', media: { colorScheme: 'dark' }, viewport: DESKTOP },
  { look: 'forced', media: { colorScheme: 'dark', forcedColors: 'active' }, viewport: DESKTOP },
  { look: 'phone', media: { colorScheme: 'light', forcedColors: 'none' }, viewport: PHONE },
] as const
/** In pixels of CSS. */
const MIN_TARGET = 44

/**
 * Expects that axe finds nothing serious in light, dark, forced colours and on a phone, that nothing
 * is wider than the screen, and that fingers find their targets, unless the page has `foreign`
 * controls. Keeps screenshots for people.
 */
export async function expectGoodLooks(
  page: Page,
  state: string,
  controls: 'own' | 'foreign' = 'own',
): Promise<void> {
  mkdirSync(SCREENSHOTS, { recursive: true })
  const session = await page.context().newCDPSession(page)
  for (const { look, media, viewport } of LOOKS) {
    const name = `${state}-${look}`
    await page.emulateMedia(media)
    await page.setViewportSize(viewport)
    if (viewport === PHONE) {
      await useFinger(session, true)
      if (controls === 'own') expect(await smallTargets(page), name).toEqual([])
    }
    await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`), fullPage: true })
    expect(await seriousIssues(page), name).toEqual([])
    const [needed, given] = await page
      .locator('html')
      .evaluate(({ scrollWidth, clientWidth }) => [scrollWidth, clientWidth])
    expect(needed, name).toBeLessThanOrEqual(given)
  }
  // Clicks of a mouse would do nothing.
  await useFinger(session, false)
}

/** Whether the page's pointer is a finger. */
async function useFinger(session: CDPSession, enabled: boolean) {
  await session.send('Emulation.setTouchEmulationEnabled', { enabled })
  await session.send('Emulation.setEmitTouchEventsForMouse', {
    enabled,
    configuration: enabled ? 'mobile' : 'desktop',
  })
}

/** What a finger would miss. */
const smallTargets = (page: Page): Promise<string[]> =>
  page.locator('html').evaluate(
    (html, min) =>
      [...html.querySelectorAll('a[href], button, input, select, summary')]
        .filter((element) => element.checkVisibility() && !element.matches('.visually-hidden'))
        .filter((element) => element.getBoundingClientRect().height < min)
        .map(({ outerHTML }: { outerHTML: string }) => outerHTML),
    MIN_TARGET,
  )

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
