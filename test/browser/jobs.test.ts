// feature: reports
import type { Locator } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { accept, untilFinished } from '../support/reports.ts'
import { until } from '../support/until.ts'
import { newSlowCsv } from './support/new-slow-csv.ts'
import { button, panel, untilLive, untilText } from './support/panels.ts'
import { startSite } from './support/site.ts'

let site: Awaited<ReturnType<typeof startSite>>

beforeAll(async () => {
  site = await startSite()
})
afterAll(() => site.close())

async function openJobs() {
  const page = await site.open()
  await untilLive(page)
  const jobs = panel(page, 'jobs')
  return { jobs, rowOf: (id: string) => jobs.locator(`[data-job="${id}"]`) }
}

const untilState = (row: Locator, state: string) =>
  until(async () => (await row.locator('.badge').textContent()) === state, `it is ${state}`, 20_000)

test('a job comes to the top, shows how far it is and how it ended', async () => {
  const { jobs, rowOf } = await openJobs()
  const { id } = await accept(site.url, newSlowCsv(), { headers: site.operator })
  await untilState(rowOf(id), 'running')
  expect(await jobs.locator('tbody tr').first().getAttribute('data-job')).toBe(id)
  const progress = rowOf(id).locator('progress')
  await until(async () => {
    const value = await progress.evaluate((bar) => bar.value)
    return value > 0 && value < 1
  }, 'its progress is pushed')
  await untilState(rowOf(id), 'succeeded')
  await untilText(rowOf(id), /report\.build.*1 of 6/)
  expect(await rowOf(id).getByRole('button').count()).toBe(0)
})

test('a running job is cancelled, and tried again', async () => {
  const { rowOf } = await openJobs()
  const { id } = await accept(site.url, newSlowCsv(), { headers: site.operator })
  await untilState(rowOf(id), 'running')
  await button(rowOf(id), 'Cancel').click()
  await untilState(rowOf(id), 'cancelled')
  expect((await untilFinished(site.url, id, undefined, site.operator)).state).toBe('cancelled')
  await button(rowOf(id), 'Retry').click()
  await untilState(rowOf(id), 'succeeded')
})

test('a failed job says what went wrong, and keeps its place and the focus while it is tried again', async () => {
  const { rowOf } = await openJobs()
  const { id } = await accept(site.url, 'a,b\n1,2\n', {
    query: '?groupBy=colour',
    headers: site.operator,
  })
  await untilState(rowOf(id), 'failed')
  await untilText(rowOf(id), /There is no column "colour"/)
  const retry = button(rowOf(id), 'Retry')
  await retry.focus()
  await retry.press('Enter')
  await until(
    async () => (await untilFinished(site.url, id, undefined, site.operator)).attempt === 1,
    'it has failed again',
  )
  await untilState(rowOf(id), 'failed')
})

test('what others queue and nobody pushes is found by reading', async () => {
  const { jobs, rowOf } = await openJobs()
  const id = crypto.randomUUID().replace(/^./, 'f')
  await site.database
    .withSignal()
    .insertInto('job')
    .values({
      id,
      kind: 'elsewhere.done',
      state: 'queued',
      due_at: null,
      priority: 0,
      max_attempts: 1,
      input: 'null',
    } as never)
    .execute()
  await untilText(rowOf(id), /elsewhere\.done.*queued/)
  expect(await jobs.locator('tbody tr').first().getAttribute('data-job')).toBe(id)
})
