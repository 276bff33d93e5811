import { afterAll, beforeAll, expect, test } from 'vitest'
import { request } from '../support/service.ts'
import { until } from '../support/until.ts'
import { button, panel, untilLive, untilText } from './support/panels.ts'
import { startSite } from './support/site.ts'

let site: Awaited<ReturnType<typeof startSite>>

beforeAll(async () => {
  site = await startSite()
})
afterAll(() => site.close())

async function openProducts() {
  const page = await site.open()
  await untilLive(page)
  const products = panel(page, 'products')
  await products.locator('li').first().waitFor()
  return { products, first: products.locator('li').first() }
}

test('a change that anybody makes is pushed, and comes first', async () => {
  const { first } = await openProducts()
  await request(`${site.url}/v1/products/700`, 'PATCH', { stock: 4_321 }, site.operator)
  await untilText(first, /no\. 700.*4321 in stock/)
  const { body } = await request(
    `${site.url}/v1/products`,
    'POST',
    {
      name: 'Samovar',
      price: '89.00',
      stock: 2,
    },
    site.operator,
  )
  await untilText(first, /Samovar.*2 in stock/)
  await request(`${site.url}/v1/products/${body.id}`, 'DELETE', undefined, site.operator)
  await untilText(first, /no\. 700/)
})

test('a change made here is heard of on another page', async () => {
  const [here, there] = [await openProducts(), await openProducts()]
  await button(here.products, 'Restock a product by 20').click()
  const [, name = '', stock] = await untilText(
    here.products.getByRole('status'),
    /^(.+): \d+ became (\d+)$/,
  )
  for (const { first } of [here, there])
    await until(
      async () => (await first.textContent())?.match(`^${name}${stock} in stock`),
      `${name} comes first`,
    )
})

test('of many changes in a row the last few are read', async () => {
  const page = await site.open()
  await untilLive(page)
  const reads: string[] = []
  page.on('request', (read) => /\/v1\/products\/\d\d+$/.test(read.url()) && reads.push(read.url()))
  const first = panel(page, 'products').locator('li').first()
  await first.waitFor()
  // Where changes are slow, there would be time to read each.
  const made = Promise.withResolvers<void>()
  await page.route(/\/v1\/products\/\d\d+$/, (route) => made.promise.then(() => route.continue()))
  for (let round = 1; round <= 20; round++)
    await Promise.all(
      Array.from({ length: 10 }, (_, index) =>
        request(`${site.url}/v1/products/${100 + index}`, 'PATCH', { stock: round }, site.operator),
      ),
    )
  await request(`${site.url}/v1/products/500`, 'PATCH', { stock: 9_876 }, site.operator)
  made.resolve()
  await untilText(first, /no\. 500.*9876 in stock/)
  expect(reads.length).toBeLessThan(150)
})
