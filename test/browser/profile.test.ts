// feature: primes
import { readFile } from 'node:fs/promises'
import type { Locator } from 'playwright-core'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { request } from '../support/service.ts'
import { until } from '../support/until.ts'
import { expectGoodLooks } from './support/looks.ts'
import { button, panel, untilLive, untilText } from './support/panels.ts'
import { startSite } from './support/site.ts'
import { REFUSED_WHILE_BLOCKED } from './support/trouble.ts'

const REFUSED_TWICE = /status of 409/

let site: Awaited<ReturnType<typeof startSite>>

beforeAll(async () => {
  // Counting primes over and over would use up the limit.
  site = await startSite({ RATE_LIMITS: 'off' })
})
afterAll(() => site.close())

async function openProfile() {
  const page = await site.open({ tolerate: [REFUSED_WHILE_BLOCKED, REFUSED_TWICE] })
  await untilLive(page)
  const profile = panel(page, 'profile')
  const status = profile.getByRole('status').first()
  await profile.getByLabel('for', { exact: true }).fill('5')
  return { page, profile, status }
}

/** Counts primes over and over until the test ends. */
function countPrimes(mode: 'inline' | 'offload') {
  let isOver = false
  const count = async () => {
    while (!isOver) await request(`${site.url}/v1/primes?to=1000000&mode=${mode}`)
  }
  const counting = count()
  onTestFinished(async () => {
    isOver = true
    await counting
  })
}

const untilRecorded = (status: Locator) => untilText(status, /: busy for .+ samples\.$/, 30_000)

/** The function that takes the most time, with its place. */
const readWidest = (profile: Locator) =>
  profile
    .getByRole('region', { name: 'Functions by time' })
    .locator('tbody th')
    .first()
    .textContent()

test('a recording of the blocked event loop becomes a flame graph that keys explore', async () => {
  const { page, profile, status } = await openProfile()
  await button(profile, 'Record').click()
  await untilText(status, /^Recording the event loop$/)
  // Only now: what V8 has inlined before counts for its caller.
  countPrimes('inline')
  await untilText(profile, /\d s left/)
  await untilRecorded(status)
  expect(await readWidest(profile)).toContain('src/features/primes/')

  const graph = profile.getByRole('application', { name: 'Flame graph' })
  const state = (): Promise<{ chosen?: string; zoomed: string; bars: number }> =>
    profile.evaluate(({ flameGraph: { chosen, zoomed, bars } }) => ({
      chosen: chosen?.callee.name,
      zoomed: zoomed.callee.name,
      bars: bars.length,
    }))
  await until(async () => (await state()).bars > 5, 'the graph is drawn')
  await graph.focus()
  for (const key of ['ArrowDown', 'ArrowDown', 'ArrowDown']) await page.keyboard.press(key)
  const { chosen } = await state()
  expect(chosen).toBeDefined()
  const spoken = graph.locator('xpath=..').getByRole('status')
  await untilText(spoken, /, self [\d.]+ m?s \([\d.]+ %\), total /)
  expect(await spoken.textContent()).toContain(chosen)
  await page.keyboard.press('Enter')
  expect((await state()).zoomed).toBe(chosen)
  expect(await button(profile, 'Show all').isEnabled()).toBe(true)
  await page.keyboard.press('Escape')
  expect((await state()).zoomed).toBe('(root)')
  expect(await button(profile, 'Show all').isEnabled()).toBe(false)

  await profile.getByLabel('Find a function').fill('features/primes')
  await untilText(profile, /\d functions?, in total [\d.]+ s \([\d.]+ %\)/)
  await expectGoodLooks(page, 'profile')

  const downloading = page.waitForEvent('download')
  await button(profile, 'Download .cpuprofile').click()
  const download = await downloading
  expect(download.suggestedFilename()).toMatch(/^event-loop-.*\.cpuprofile$/)
  const { nodes, samples } = JSON.parse(await readFile(await download.path(), 'utf8'))
  expect(Math.min(nodes.length, samples.length)).toBeGreaterThan(10)
})

test('a thread is recorded, and stopping early keeps what there is', async () => {
  const { profile, status } = await openProfile()
  await profile.getByLabel('Profile of').selectOption('compute-1')
  await profile.getByLabel('for', { exact: true }).fill('30')
  await button(profile, 'Record').click()
  countPrimes('offload')
  countPrimes('offload')
  await untilText(profile, /(?<!\d)(2[0-6]|1?\d) s left/)
  await button(profile, 'Stop recording').click()
  await untilRecorded(status)
  expect(await status.textContent()).toMatch(/^compute-1: /)
  expect(await readWidest(profile)).toContain('src/features/primes/')
})

test('another recording that is under way is named', async () => {
  const { profile, status } = await openProfile()
  const profiles = `${site.url}/v1/ops/profiles`
  const record = () => request(profiles, 'POST', { seconds: 30 }, site.operator)
  const recordings = [record(), record()]
  // One is refused, because the other is under way.
  expect((await Promise.race(recordings)).status).toBe(409)
  await button(profile, 'Record').click()
  await untilText(status, /Another profile is being recorded/)
  await request(`${profiles}/current`, 'DELETE', undefined, site.operator)
  await Promise.all(recordings)
  expect(await button(profile, 'Record').isEnabled()).toBe(true)
})

test('the heap is listed, and a snapshot says why it cannot be taken', async () => {
  const { profile } = await openProfile()
  await untilText(profile.getByRole('region', { name: 'Heap spaces' }), /old space[\d.]+ MiB/)
  expect(await button(profile, 'Take a heap snapshot').isEnabled()).toBe(false)
  await untilText(profile, /Only in development \(NODE_ENV=development\)/)
})
