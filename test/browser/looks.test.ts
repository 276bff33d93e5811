// feature: products, primes, mandelbrot, reports
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Locator, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { accept } from '../support/reports.ts'
import { DESKTOP, expectGoodLooks, SCREENSHOTS } from './support/looks.ts'
import { newSlowCsv } from './support/new-slow-csv.ts'
import { button, panel, untilLive, untilText } from './support/panels.ts'
import { startSite } from './support/site.ts'
import { REFUSED_WHILE_BLOCKED } from './support/trouble.ts'

/** Where the first link is, frame by frame. */
const RECORD_LINKS = `
  globalThis.places = new Set()
  const record = () => {
    const link = document.querySelector('nav a')
    if (link) places.add(JSON.stringify(link.getBoundingClientRect()))
    requestAnimationFrame(record)
  }
  record()
`

let site: Awaited<ReturnType<typeof startSite>>

beforeAll(async () => {
  mkdirSync(SCREENSHOTS, { recursive: true })
  site = await startSite()
})
afterAll(() => site.close())

async function openDesktop() {
  const page = await site.open({
    reducedMotion: 'reduce',
    viewport: DESKTOP,
    tolerate: [REFUSED_WHILE_BLOCKED],
  })
  await untilLive(page)
  return page
}

test('a first visit shows at a glance what the promise is, and both results stay side by side', {
  timeout: 120_000,
}, async () => {
  const page = await openDesktop()
  await tryBoth(page)
  await page.screenshot({ path: join(SCREENSHOTS, 'readme.png') })
  for (const id of ['light-request', 'primes', 'threads', 'event-loop']) {
    const { y } = (await panel(page, id).boundingBox()) ?? expect.unreachable()
    expect(y, `${id} begins above the fold`).toBeLessThan(DESKTOP.height / 2)
  }
  await expectGoodLooks(page, 'tried')
})

test('whatever it shows, axe finds nothing serious, and nothing is wider than the screen', {
  timeout: 120_000,
}, async () => {
  const page = await openDesktop()
  await expectGoodLooks(page, 'empty')
  await useEverything(page)
  await expectGoodLooks(page, 'operator')
})

test('the examples fold away, and stay so', async () => {
  const page = await site.open({ reducedMotion: 'reduce', tolerate: [REFUSED_WHILE_BLOCKED] })
  await untilLive(page)
  const heading = page.getByRole('heading', { name: 'Examples' })
  await panel(page, 'products').waitFor()
  await heading.click()
  await panel(page, 'products').waitFor({ state: 'hidden' })
  await page.reload()
  await untilLive(page)
  expect(await panel(page, 'products').isVisible()).toBe(false)
  await expectGoodLooks(page, 'folded')
  await heading.click()
  await untilText(panel(page, 'mandelbrot'), /1 ×.* pixels in/)
})

test.each(['operator', 'nobody'] as const)(
  'its links stay where they are, for %s, while it finds out who is there',
  async (as) => {
    const page = await site.open({ as, init: RECORD_LINKS, tolerate: [/401/] })
    await untilLive(page)
    await page.getByRole('button', { name: /^Sign (in|out)$/ }).waitFor()
    expect(await page.evaluate('places.size')).toBe(1)
  },
)

describe('the keyboard', () => {
  test('reaches every control, and the focus is seen on each', async () => {
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
      html.unseen = new Set()
      html.addEventListener('focusin', ({ target }: { target: typeof html }) => {
        html.reached.add(target)
        // A hidden input of a file shows its focus on its label.
        const shown = target.matches('.visually-hidden') ? target.closest('label') : target
        const { outlineStyle, outlineWidth } =
          html.ownerDocument.defaultView.getComputedStyle(shown)
        if (outlineStyle === 'none' || outlineWidth === '0px') html.unseen.add(target)
      })
      return html.usable.length
    })
    expect(count).toBeGreaterThan(15)
    // Lists that arrive meanwhile have controls, too.
    for (let press = 0; press < 2 * count; press++) await page.keyboard.press('Tab')
    const [missed, unseen] = await html.evaluate(({ usable, reached, unseen }) => {
      // A row of a list may be gone by now, and a button disabled.
      const isMissed = (element: typeof usable) =>
        element.checkVisibility() && !element.matches(':disabled') && !reached.has(element)
      const missed = usable.filter(isMissed)
      return [missed, [...unseen]].map((elements) =>
        elements.map(({ outerHTML }: { outerHTML: string }) => outerHTML),
      )
    })
    expect(missed).toEqual([])
    expect(unseen).toEqual([])
  })

  test('finds for each control a name that no other has in its region', async () => {
    const page = await site.open()
    await untilLive(page)
    const controls = await readControls(page)
    expect(controls.length).toBeGreaterThan(15)
    expect(controls.filter(({ name }) => name === '')).toEqual([])
    const texts = controls.map(({ region, role, name }) => `${region}: ${role} ${name}`)
    expect(texts.filter((text, index) => texts.indexOf(text) !== index)).toEqual([])
  })
})

interface Control {
  region: string
  role: string
  name: string
}

/** What can have the focus, as assistive technology is told of it. */
async function readControls(page: Page): Promise<Control[]> {
  const session = await page.context().newCDPSession(page)
  const { nodes } = await session.send('Accessibility.getFullAXTree')
  const byId = new Map(nodes.map((node) => [node.nodeId, node]))
  const isRegion = ({ role }: (typeof nodes)[number]) => role?.value === 'region'
  const findRegion = (id: string | undefined): string => {
    const node = byId.get(id ?? '')
    if (!node) return 'page'
    return isRegion(node) ? node.name?.value : findRegion(node.parentId)
  }
  return nodes
    .filter(({ ignored, properties = [] }) => {
      const isFocusable = properties.some(({ name, value }) => name === 'focusable' && value.value)
      return !ignored && isFocusable
    })
    .map((node) => ({
      region: findRegion(node.parentId),
      role: node.role?.value ?? '',
      name: node.name?.value ?? '',
    }))
    .filter(({ role }) => role !== 'RootWebArea' && role !== 'main')
}

async function tryBoth(page: Page) {
  const tryIt = panel(page, 'primes')
  for (const where of ['on worker threads', 'on the event loop']) {
    await button(tryIt, `Count primes ${where}`).click()
    await untilText(tryIt.getByRole('status'), new RegExp(`^Counted primes ${where}`), 60_000)
  }
}

/**
 * So that there is something to see: one job failed, one was done, and one still runs.
 */
async function useEverything(page: Page) {
  const [reports, products, picture] = ['reports', 'products', 'mandelbrot'].map((id) =>
    panel(page, id),
  ) as [Locator, Locator, Locator]
  await accept(site.url, 'a,b\n1,2\n', { query: '?groupBy=colour', headers: site.operator })
  await button(reports, 'Take an example').click()
  await button(reports, 'Summarise').click()
  await zoomInto(picture, 0.4736, 0.4533)
  await untilText(picture, /3 ×/)
  await zoomInto(picture, 0.45, 0.3)
  await untilText(picture, /9 ×/)
  await button(products, 'Restock a product by 20').click()
  await untilText(reports.getByRole('status'), /^Done$/, 60_000)
  await accept(site.url, newSlowCsv(), { headers: site.operator })
  await untilText(panel(page, 'jobs'), /running/)
}

async function zoomInto(picture: Locator, right: number, down: number) {
  const { width, height } =
    (await picture.locator('.picture').boundingBox()) ?? expect.unreachable()
  await picture.locator('.picture').click({ position: { x: right * width, y: down * height } })
}
