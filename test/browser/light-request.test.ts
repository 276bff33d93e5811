import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { until } from '../support/until.ts'
import { panel, pointsOf, untilLive, untilText } from './support/panels.ts'
import { startSite } from './support/site.ts'

let site: Awaited<ReturnType<typeof startSite>>

beforeAll(async () => {
  site = await startSite()
})
afterAll(() => site.close())

describe('the first panel', () => {
  test('says how long a light request takes, now and at worst, and how busy the threads are', async () => {
    const page = await site.open()
    await untilLive(page)
    const first = page.locator('main > section').first()
    expect(await first.getAttribute('id')).toBe('light-request')
    await untilText(first, /now[\d.]+ m?s.*p99 of two minutes[\d.]+ m?s/)
    await untilText(first, /threads busy, 0 queued0 of 2/)
    await until(
      async () => (await pointsOf(page, 'light-request', 0, 0)).length >= 3,
      'it is measured again and again',
    )
  })

  test('counts a slow request as such', async () => {
    const page = await site.open()
    const first = panel(page, 'light-request')
    await untilText(first, /now\d/)
    const slowest = async () => Math.max(...(await pointsOf(page, 'light-request', 0, 0)))
    // On a busy machine some have been slow already.
    const latency = Math.ceil(await slowest()) + 300
    const session = await page.context().newCDPSession(page)
    await session.send('Network.enable')
    await session.send('Network.emulateNetworkConditions', {
      offline: false,
      latency,
      downloadThroughput: -1,
      uploadThroughput: -1,
    })
    await until(async () => (await slowest()) >= latency, 'its latency is in the chart')
    await untilText(first, /^Light request(very )?slow/)
  })

  test('says to visitors what they have to do to see the threads', async () => {
    const page = await site.open({ as: 'nobody', tolerate: [/status of 401/] })
    await untilText(panel(page, 'light-request'), /now\d.*threads busy: Sign in to use this\.–/)
  })
})
