import { afterAll, beforeAll, expect, test } from 'vitest'
import { events } from '../../src/features/index.ts'
import { until } from '../support/until.ts'
import { startSite } from './support/site.ts'

let site: Awaited<ReturnType<typeof startSite>>

beforeAll(async () => {
  site = await startSite()
})
afterAll(() => site.close())

test('the page leads to the API reference, which works without the internet and lists what is pushed', async () => {
  const page = await site.open()
  await page.getByRole('link', { name: 'API reference' }).click()
  await until(async () => (await page.textContent('body'))?.includes('Draw a part of the Mandelbrot set'), 'it is rendered')
  const text = (await page.textContent('body')) ?? ''
  for (const { name } of events) expect(text).toContain(name)
})
