import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Feature } from '../../src/feature.ts'
import { features } from '../../src/features/index.ts'
import { until } from '../support/until.ts'
import { expectGoodLooks } from './support/looks.ts'
import { startSite } from './support/site.ts'

let site: Awaited<ReturnType<typeof startSite>>

beforeAll(async () => {
  site = await startSite()
})
afterAll(() => site.close())

/** Scalar looks whether it may use eval, and goes on without. */
const TOLERATED = [/script-src eval/]
const PHONE = { width: 390, height: 844 }

test('the page leads to the API reference, which works without the internet and lists what is pushed', async () => {
  const page = await site.open({ tolerate: TOLERATED })
  await page.getByRole('link', { name: 'API reference' }).click()
  const lists = async () => {
    const text = await page.locator('body').innerText()
    return features
      .flatMap((feature: Feature) => feature.events ?? [])
      .every(({ name }) => text.includes(name))
  }
  await until(lists, 'all events are listed')
})

// `startSite` fails a test whose page asks another host for anything.
test('no link of the API reference leads elsewhere, whatever is opened in it', async () => {
  const tolerate = [...TOLERATED, /trying to add a Cookie header/]
  const page = await site.open({ path: '/docs#tag/jobs/GET/v1/jobs', tolerate })
  const seen = new Set<string>()
  const look = async (state: string) => {
    const hrefs = await page
      .locator('a[href]')
      .evaluateAll((links) =>
        links.filter((link) => link.checkVisibility()).map((link) => link.href),
      )
    for (const href of hrefs) seen.add(href)
    const foreign = hrefs.filter((href) => new URL(href).origin !== site.url)
    expect([state, foreign]).toEqual([state, []])
  }
  await page.getByRole('button', { name: 'Test Request' }).first().waitFor()
  await look('as it opens')
  await page.keyboard.press('Control+k')
  await page.getByRole('dialog').locator('input').fill('jobs')
  await page.getByRole('dialog').getByRole('option').first().waitFor()
  await look('searching')
  await page.keyboard.press('Escape')
  await page.getByRole('button', { name: 'Test Request' }).first().click()
  const send = page.getByRole('button', { name: /^Send/ }).first()
  await send.waitFor()
  await look('before a request')
  await send.click()
  await until(
    async () => (await page.locator('body').innerText()).includes('nextCursor'),
    'the answer is there',
  )
  await look('after a request')
  expect(seen.size).toBeGreaterThan(5)
})

test('on a phone its menu has every group, and no link that leads elsewhere', async () => {
  const page = await site.open({ path: '/docs', viewport: PHONE, tolerate: TOLERATED })
  await page.getByRole('button', { name: 'Open Menu' }).click()
  for (const group of ['jobs', 'accounts', 'keys'])
    await page
      .getByRole('button', { name: `Open Group - ${group}` })
      .filter({ visible: true })
      .waitFor()
  const foreign = await page
    .locator('a[href*="//"]')
    .filter({ visible: true })
    .evaluateAll((links) => links.map(({ href }) => href))
  expect(foreign.filter((href) => new URL(href).origin !== site.url)).toEqual([])
})

// It follows the scheme that it was opened in.
test.each(['light', 'dark'] as const)(
  'axe finds nothing serious in it when %s',
  async (colorScheme) => {
    const path = '/docs#tag/jobs/GET/v1/jobs'
    const page = await site.open({ path, colorScheme, tolerate: TOLERATED })
    await page.getByRole('button', { name: 'Test Request' }).first().waitFor()
    await expectGoodLooks(page, `docs-${colorScheme}`, 'foreign')
  },
)

test.each(['localhost', '127.0.0.1'])(
  'its examples can be copied: they name the host that it was opened on, %s',
  async (host) => {
    const url = site.url.replace('localhost', host)
    const page = await site.open({
      path: '/docs#tag/jobs/GET/v1/jobs/{id}',
      host,
      tolerate: TOLERATED,
    })
    await until(
      async () => (await page.locator('body').innerText()).includes(`curl ${url}/v1/jobs/`),
      'there is an example',
    )
  },
)

test.each([1280, 390])(
  'it fits into %i pixels, and breaks no word of the events in two',
  async (width) => {
    const page = await site.open({
      path: '/docs',
      viewport: { width, height: 900 },
      tolerate: TOLERATED,
    })
    const fields = page.locator('li > code:first-child')
    await fields.first().waitFor()
    const lines = await fields.evaluateAll((codes) =>
      codes.map((code) => code.getClientRects().length),
    )
    expect(new Set(lines)).toEqual(new Set([1]))
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(width)
  },
)
