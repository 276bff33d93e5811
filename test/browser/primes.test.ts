import type { Locator } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { untilRunning, untilThreadsFree } from '../support/service.ts'
import { until } from '../support/until.ts'
import { button, panel, pointsOf, untilLive, untilText } from './support/panels.ts'
import { startSite } from './support/site.ts'
import { REFUSED_WHILE_BLOCKED } from './support/trouble.ts'

const TRY_MS = 60_000
/** The browser's word on what the service answers to those who are not signed in. */
const UNKNOWN = /status of 401/

let site: Awaited<ReturnType<typeof startSite>>

beforeAll(async () => {
  site = await startSite()
})
afterAll(() => site.close())

async function openTry(as: 'operator' | 'nobody' = 'operator') {
  const page = await site.open({ as, tolerate: [REFUSED_WHILE_BLOCKED, UNKNOWN] })
  await untilLive(page)
  const tryIt = panel(page, 'primes')
  return { page, tryIt, status: tryIt.getByRole('status') }
}

const column = (tryIt: Locator, name: string) => tryIt.getByRole('region', { name })
const display = (tryIt: Locator, name: string) => column(tryIt, name).locator('.display')
const start = (tryIt: Locator, where: string) => button(tryIt, `Count primes ${where}`).click()

/** What a row says of the median and the worst run, in milliseconds. */
async function readRow(tryIt: Locator, name: string, row: string) {
  const cells = await column(tryIt, name)
    .getByRole('row', { name: row })
    .getByRole('cell')
    .allTextContents()
  return cells.map((text) => {
    const [, figure = '', unit] = text.match(/^([\d.,]+) (m?s)$/) ?? []
    return Number(figure.replace(',', '')) * (unit === 's' ? 1_000 : 1)
  })
}

test('work on the event loop is felt by every user, work on threads is not, and both results stay', async () => {
  const { page, tryIt, status } = await openTry()
  const [threads, loop] = ['On worker threads', 'On the event loop'] as const
  for (const name of [threads, loop])
    await untilText(column(tryIt, name), /–.*the slowest light request while primes are counted/)

  await start(tryIt, 'on worker threads')
  await untilText(status, /^Counted primes on worker threads, in 3 runs$/, TRY_MS)
  const onThreads = await display(tryIt, threads).textContent()
  await start(tryIt, 'on the event loop')
  await untilText(status, /^Counted primes on the event loop, in 3 runs$/, TRY_MS)

  expect(await display(tryIt, threads).textContent()).toBe(onThreads)
  for (const name of [threads, loop])
    for (const row of ['Took', 'Slowest light request', 'Event loop blocked']) {
      const [median = Number.NaN, worst = Number.NaN] = await readRow(tryIt, name, row)
      expect(worst, `${row} ${name}`).toBeGreaterThanOrEqual(median)
    }
  const [offloaded = 0] = await readRow(tryIt, threads, 'Slowest light request')
  const [inline = 0] = await readRow(tryIt, loop, 'Slowest light request')
  expect(inline).toBeGreaterThan(200)
  expect(offloaded).toBeLessThan(inline / 2)
  const [, freeFor = 0] = await readRow(tryIt, threads, 'Event loop blocked')
  const [blockedFor = 0] = await readRow(tryIt, loop, 'Event loop blocked')
  expect(blockedFor).toBeGreaterThan(200)
  expect(freeFor).toBeLessThan(blockedFor / 2)
  await untilText(
    column(tryIt, loop),
    new RegExp(`${inline.toLocaleString('en')} ms.*everybody waited`),
  )
  const slowest = Math.max(...(await pointsOf(page, 'light-request', 0, 0)))
  expect(Math.round(slowest)).toBeGreaterThanOrEqual(inline)
})

test('the lanes show the tasks that have just run, on every thread', async () => {
  const { page, tryIt, status } = await openTry()
  await start(tryIt, 'on worker threads')
  await untilText(status, /^Counted/, TRY_MS)
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

test('what runs can be stopped with the keyboard, and then the threads are free', async () => {
  const { page, tryIt, status } = await openTry()
  const count = button(tryIt, 'Count primes on worker threads')
  const stop = button(tryIt, 'Stop the run')
  expect(await stop.isVisible()).toBe(false)
  await count.focus()
  await page.keyboard.press('Enter')
  await untilRunning(site.opsUrl, 2)
  expect(await button(tryIt, 'Count primes on the event loop').isEnabled()).toBe(false)
  await page.keyboard.press('Shift+Tab')
  await page.keyboard.press('Enter')
  await untilText(status, /^Stopped in run [123] of 3$/)
  await untilThreadsFree(site.opsUrl)
  expect(await count.isEnabled()).toBe(true)
  expect(await count.evaluate((button) => button.matches(':focus'))).toBe(true)
  expect(await display(tryIt, 'On worker threads').textContent()).toBe('–')
})

describe('a visitor who is not signed in', () => {
  test('sees the slowest light request, and for the event loop that it takes signing in', async () => {
    const { tryIt, status } = await openTry('nobody')
    await start(tryIt, 'on worker threads')
    await untilText(status, /^Counted/, TRY_MS)
    await untilText(display(tryIt, 'On worker threads'), /^[\d,]+ ms$/)
    await untilText(
      column(tryIt, 'On worker threads').getByRole('row', { name: 'Event loop blocked' }),
      /Sign in to use this\.$/,
    )
  })
})

describe('a service that does no heavy work on its event loop', () => {
  test('is no error of the page: it says why, and how to see it', async () => {
    const calm = await startSite({ DEMO_INLINE: 'false' })
    onTestFinished(() => calm.close())
    const page = await calm.open({ tolerate: [/status of 403/] })
    const tryIt = panel(page, 'primes')
    await start(tryIt, 'on the event loop')
    await untilText(
      tryIt.getByRole('status'),
      /^This service runs no heavy work on its event loop.*DEMO_INLINE=true/,
    )
    await start(tryIt, 'on worker threads')
    await untilText(display(tryIt, 'On worker threads'), /^[\d,]+ ms$/, TRY_MS)
  })
})
