import { afterAll, beforeAll, expect, test } from 'vitest'
import { untilRunning, untilThreadsFree } from '../support/service.ts'
import { until } from '../support/until.ts'
import { button, panel, pointsOf, untilLive, untilText } from './support/panels.ts'
import { startSite } from './support/site.ts'
import { REFUSED_WHILE_BLOCKED } from './support/trouble.ts'

let site: Awaited<ReturnType<typeof startSite>>

beforeAll(async () => {
  site = await startSite()
})
afterAll(() => site.close())

async function openTry() {
  const page = await site.open({ tolerate: [REFUSED_WHILE_BLOCKED] })
  await untilLive(page)
  const tryIt = panel(page, 'primes')
  await tryIt.getByLabel('at a time').fill('1')
  return { page, tryIt, status: tryIt.getByRole('status') }
}

/** Places of lines in their charts. */
const LATENCY = 0
const MAX_DELAY = 0

test('work on the event loop is felt by every user, work on threads is not', async () => {
  const { page, tryIt, status } = await openTry()
  const latencies = (since: number) => pointsOf(page, 'primes', LATENCY, since)
  const delays = (since: number) => pointsOf(page, 'event-loop', MAX_DELAY, since)
  const untilSampled = (since: number) =>
    until(async () => (await delays(since)).length > 0, 'the service says how it did')
  await until(async () => (await latencies(0)).length >= 5, 'the probe measures')

  const offloadedAt = Date.now()
  await button(tryIt, 'On worker threads').click()
  await untilText(status, /^Counted 283,146 primes once on worker threads, in [\d.]+ m?s$/, 20_000)
  await untilSampled(Date.now())
  const [latency, delay] = [
    Math.max(...(await latencies(offloadedAt))),
    Math.max(...(await delays(offloadedAt))),
  ]

  const inlineAt = Date.now()
  await button(tryIt, 'On the event loop').click()
  await untilText(status, /^Counted 283,146 primes once on the event loop, in [\d.]+ m?s$/, 20_000)
  const untilJump = async (points: typeof delays, what: string) => {
    const worst = async () => Math.max(...(await points(inlineAt)))
    await until(async () => (await worst()) >= 200, `the ${what} jumps`)
    return worst()
  }
  expect(delay).toBeLessThan((await untilJump(delays, 'delay of the loop')) / 2)
  expect(latency).toBeLessThan((await untilJump(latencies, 'latency of the probe')) / 2)
})

test('the lanes show the tasks that have just run, on every thread', async () => {
  const { page, tryIt, status } = await openTry()
  await tryIt.getByLabel('at a time').fill('4')
  await button(tryIt, 'On worker threads').click()
  await untilText(status, /^Counted/, 20_000)
  const counted = (): Promise<Span[]> =>
    panel(page, 'threads').evaluate(({ lanes }) =>
      lanes.spans.filter(({ task }: { task: string }) => task === 'primes.count'),
    )
  await until(
    async () => new Set((await counted()).map(({ thread }) => thread)).size === 2,
    'both threads are seen at work',
  )
  for (const { startedAt, endedAt, outcome } of await counted()) {
    expect(outcome).toBe('succeeded')
    expect(endedAt).toBeGreaterThan(startedAt)
  }
})

interface Span {
  thread: string
  startedAt: number
  endedAt: number
  outcome: string
}

test('what runs can be stopped, and then the threads are free', async () => {
  const { tryIt, status } = await openTry()
  await tryIt.getByLabel('at a time').fill('4')
  await button(tryIt, 'On worker threads').click()
  await untilRunning(site.opsUrl, 2)
  await button(tryIt, 'Stop').click()
  await untilText(status, /^Stopped after [0-3] of 4$/)
  await untilThreadsFree(site.opsUrl)
  expect(await button(tryIt, 'On worker threads').isEnabled()).toBe(true)
})

test('no more than a browser has connections for are begun at a time', async () => {
  const { tryIt, status } = await openTry()
  await tryIt.getByLabel('at a time').fill('5')
  await button(tryIt, 'On worker threads').click()
  expect(
    await tryIt.getByLabel('at a time').evaluate((input) => input.validity.rangeOverflow),
  ).toBe(true)
  expect(await status.textContent()).not.toContain('Counting')
})
