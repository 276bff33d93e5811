import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Feature } from '../../src/feature.ts'
import { features } from '../../src/features/index.ts'
import { until } from '../support/until.ts'
import { startSite } from './support/site.ts'

let site: Awaited<ReturnType<typeof startSite>>

beforeAll(async () => {
  site = await startSite()
})
afterAll(() => site.close())

/** Scalar looks whether it may use eval, and goes on without. */
const TOLERATED = [/script-src eval/]

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

test('the API reference has no link that leads elsewhere', async () => {
  const page = await site.open({ path: '/docs', tolerate: TOLERATED })
  await page
    .getByRole('link', { name: /^List / })
    .first()
    .waitFor()
  const hrefs = await page
    .locator('a[href]')
    .evaluateAll((links) => links.filter((link) => link.checkVisibility()).map((link) => link.href))
  expect(hrefs.length).toBeGreaterThan(5)
  expect(hrefs.filter((href) => new URL(href).origin !== site.url)).toEqual([])
})

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
