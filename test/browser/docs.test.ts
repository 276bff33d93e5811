import { afterAll, beforeAll, test } from 'vitest'
import { events } from '../../src/features/index.ts'
import { until } from '../support/until.ts'
import { startSite } from './support/site.ts'

let site: Awaited<ReturnType<typeof startSite>>

beforeAll(async () => {
  site = await startSite()
})
afterAll(() => site.close())

test('the page leads to the API reference, which works without the internet and lists what is pushed', async () => {
  // Scalar looks whether it may use eval, and goes on without; and it names no icon.
  const page = await site.open({ tolerate: [/script-src eval/, /favicon\.ico/] })
  await page.getByRole('link', { name: 'API reference' }).click()
  const lists = async () => {
    const text = await page.locator('body').innerText()
    return events.every(({ name }) => text.includes(name))
  }
  await until(lists, 'all events are listed')
})
