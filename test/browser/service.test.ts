// feature: products
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { request } from '../support/service.ts'
import { until } from '../support/until.ts'
import { button, panel, untilLive, untilText } from './support/panels.ts'
import { startSite } from './support/site.ts'
import { NOBODY_ANSWERS } from './support/trouble.ts'

/** What an open page reads without being asked: its probe, its panels and its charts. */
const READ_IN_THE_BACKGROUND = [
  'HEAD /',
  'GET /v1/accounts/me',
  'GET /v1/products',
  'GET /v1/jobs',
  'GET /v1/ops',
  'GET /v1/ops/spans',
]

let site: Awaited<ReturnType<typeof startSite>>

beforeAll(async () => {
  site = await startSite()
})
afterAll(() => site.close())

describe('the log of a service whose page is open', () => {
  test('has lines about what its users do, and none about what the page reads in the background', async () => {
    const page = await site.open()
    await untilLive(page)
    const background = () => countReads(site.opsUrl, READ_IN_THE_BACKGROUND)
    const before = await background()
    await until(
      async () => (await background()) >= before + 10,
      'the page has read in the background',
    )
    await button(panel(page, 'products'), 'Restock a product by 20').click()
    await until(
      () => logged(site.output()).includes('PATCH /v1/products/:id'),
      'the change is logged',
    )
    const unwanted = (request: string) => READ_IN_THE_BACKGROUND.includes(request)
    expect(logged(site.output()).filter(unwanted)).toEqual([])
  })
})

/** Method and route of each request in a log of JSON lines. */
const logged = (output: string) =>
  output.split('\n').flatMap((line) => {
    const { msg, method, route } =
      line.startsWith('{') && line.endsWith('}') ? JSON.parse(line) : {}
    return msg === 'request' ? [`${method} ${route}`] : []
  })

/** How many of these requests `/metrics` has counted as successful. */
async function countReads(url: string, requests: string[]): Promise<number> {
  const page = await (await fetch(`${url}/metrics`)).text()
  const counts = page.matchAll(
    /^http_request_duration_seconds_count\{method="(GET|HEAD)",route="([^"]+)",status="(?:200|304)"\} (\d+)$/gm,
  )
  return counts.reduce(
    (sum, [, method, route, count]) =>
      sum + (requests.includes(`${method} ${route}`) ? Number(count) : 0),
    0,
  )
}

describe('a service that dies and comes back', () => {
  test('is read again by the page, also where that fails at first, which then hears of it as before', async () => {
    const page = await site.open({ tolerate: [NOBODY_ANSWERS] })
    await untilLive(page)
    const first = panel(page, 'products').locator('li').first()
    await first.waitFor()
    await site.kill()
    await untilText(page.locator('#connection'), /^Connection lost since/)
    await site.database
      .withSignal()
      .updateTable('product')
      .set({ stock: 1_234, version: 2 })
      .where('id', '=', 7)
      .execute()
    await page.route('**/v1/products?*', (route) => route.abort(), { times: 1 })
    await site.start()
    await untilLive(page)
    await untilText(first, /no\. 7.*1234 in stock/)
    await request(`${site.url}/v1/products/8`, 'PATCH', { stock: 4_321 }, site.operator)
    await untilText(first, /no\. 8.*4321 in stock/)
  })
})
