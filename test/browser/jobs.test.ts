// feature: reports
import { randomUUIDv7 } from 'node:crypto'
import type { Locator } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { accept, untilFinished } from '../support/reports.ts'
import { until } from '../support/until.ts'
import { holdReports } from './support/hold-reports.ts'
import { expectGoodLooks } from './support/looks.ts'
import { newSlowCsv } from './support/new-slow-csv.ts'
import { button, panel, untilLive, untilText } from './support/panels.ts'
import { startSite } from './support/site.ts'

let site: Awaited<ReturnType<typeof startSite>>

beforeAll(async () => {
  site = await startSite()
})
afterAll(() => site.close())

async function openJobs(options = {}) {
  const page = await site.open(options)
  await untilLive(page)
  const jobs = panel(page, 'jobs')
  return { page, jobs, rowOf: (id: string) => jobs.locator(`[data-job="${id}"]`) }
}

/** Jobs of another process, the newest first. */
async function insert(kind: string, count: number, columns: object = { state: 'queued' }) {
  const rows = Array.from({ length: count }, () => ({
    id: randomUUIDv7(),
    kind,
    due_at: null,
    priority: 0,
    max_attempts: 1,
    input: 'null',
    ...columns,
  }))
  await site.database
    .withSignal()
    .insertInto('job')
    .values(rows as never)
    .execute()
  return rows
    .map(({ id }) => id)
    .toSorted()
    .reverse()
}

const FAILED = { state: 'failed', error: 'It cannot be done', finished_at: new Date() }

/** Named by what it does, and to which job. */
const action = (row: Locator, verb: 'Cancel' | 'Retry') =>
  row.getByRole('button', { name: new RegExp(`^${verb} [\\w.-]+ [\\da-f]{6}$`) })

const idsOf = (jobs: Locator): Promise<string[]> =>
  jobs
    .locator('[data-job]')
    .evaluateAll((rows) => rows.map((row) => row.getAttribute('data-job') ?? ''))

async function untilIds(jobs: Locator, ids: string[]) {
  const areShown = async () => (await idsOf(jobs)).join() === ids.join()
  await until(areShown, 'the rows are these').catch(async () =>
    expect(await idsOf(jobs)).toEqual(ids),
  )
}

const untilState = (row: Locator, state: string) =>
  until(
    async () => (await row.locator('.progress .badge').textContent()) === state,
    `it is ${state}`,
    60_000,
  )

/** Keeps every value that the progress bar of a running job takes. */
async function watchProgress(jobs: Locator): Promise<() => Promise<[string, number][]>> {
  await jobs.evaluate((section) => {
    section.seen = []
    const look = () => {
      for (const bar of section.querySelectorAll('[data-job] progress:not([hidden])'))
        section.seen.push([bar.closest('[data-job]').dataset.job, bar.value])
    }
    const { MutationObserver } = section.ownerDocument.defaultView
    new MutationObserver(look).observe(section, {
      subtree: true,
      childList: true,
      attributes: true,
    })
  })
  return () => jobs.evaluate(({ seen }) => seen)
}

test('a job comes to the top, shows how far it is and how it ended', async () => {
  const { jobs, rowOf } = await openJobs()
  const seen = await watchProgress(jobs)
  const { id } = await accept(site.url, newSlowCsv(), { headers: site.operator })
  await untilState(rowOf(id), 'succeeded')
  expect((await idsOf(jobs))[0]).toBe(id)
  const isUnderWay = ([job, value]: [string, number]) => job === id && value > 0 && value < 1
  expect((await seen()).some(isUnderWay)).toBe(true)
  await untilText(rowOf(id), /report\.build.*1 of 6/)
  expect(
    await action(rowOf(id), 'Cancel')
      .or(action(rowOf(id), 'Retry'))
      .count(),
  ).toBe(0)
})

test('a running job is cancelled, and tried again', async () => {
  const { rowOf } = await openJobs()
  await holdReports(site)
  const { id } = await accept(site.url, newSlowCsv(), { headers: site.operator })
  await untilState(rowOf(id), 'running')
  await action(rowOf(id), 'Cancel').click()
  await untilState(rowOf(id), 'cancelled')
  expect((await untilFinished(site.url, id, undefined, site.operator)).state).toBe('cancelled')
  await action(rowOf(id), 'Retry').click()
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
  const retry = action(rowOf(id), 'Retry')
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
  const [id = ''] = await insert('elsewhere.done', 1)
  await untilText(rowOf(id), /elsewhere\.done.*queued/)
  expect((await idsOf(jobs))[0]).toBe(id)
})

test('a row opens by Enter to all about its job, and stays open while that changes', async () => {
  const { page, jobs, rowOf } = await openJobs()
  const release = await holdReports(site)
  const { id } = await accept(site.url, newSlowCsv(), { headers: site.operator })
  const row = rowOf(id)
  await untilState(row, 'running')
  const opener = row.getByRole('button', { expanded: false })
  await opener.focus()
  await page.keyboard.press('Enter')
  await untilText(row, /Enqueued by.*Request.*Created.*last started.*running for.*Input/s)
  expect(await row.getByRole('region', { name: /^Attempts of/ }).textContent()).toMatch(/so far/)
  await insert('elsewhere.newer', 20)
  await until(async () => (await idsOf(jobs)).length > 12, 'it is past the end of the list')
  release()
  await untilState(row, 'succeeded')
  await untilText(row, /succeeded.*after.*Result.*columns/s)
  const focused = row.getByRole('button', { expanded: true })
  expect(await focused.evaluate((button) => button === button.ownerDocument.activeElement)).toBe(
    true,
  )
  await page.keyboard.press('Enter')
  await until(async () => (await row.locator('pre').count()) === 0, 'it is closed')
})

test('from a job one gets to the request that enqueued it', async () => {
  const { page, rowOf } = await openJobs()
  const [id = ''] = await insert('elsewhere.asked', 1, { state: 'queued', request_id: 'r-7' })
  const html = page.locator('html')
  await html.evaluate((html) => {
    html.ownerDocument.addEventListener('offloop:request', ({ detail }: { detail: unknown }) => {
      html.asked = detail
    })
  })
  await rowOf(id).getByRole('button', { expanded: false }).click()
  await rowOf(id)
    .getByRole('button', { name: /^Show request r-7 of elsewhere\.asked/ })
    .click()
  expect(await html.evaluate(({ asked }) => asked)).toEqual({ requestId: 'r-7' })
})

test('large inputs are shown in part, and markup as text', async () => {
  const { rowOf } = await openJobs()
  const input = JSON.stringify(`<b>bold</b>${'x'.repeat(20_000)}`)
  const [id = ''] = await insert('elsewhere.large', 1, { state: 'queued', input })
  await rowOf(id).getByRole('button', { expanded: false }).click()
  await untilText(rowOf(id), /Input, shown in part: 10,000 of 20,013 characters/)
  expect((await rowOf(id).locator('pre').textContent())?.length).toBe(10_000)
  await untilText(rowOf(id).locator('pre'), /^"<b>bold/)
})

test('states with their counts, kind and time filter together, also after a reload', async () => {
  const { page, jobs } = await openJobs()
  const old = '01000000-0000-7000-8000-000000000001'
  const failed = await insert('elsewhere.filtered', 2, FAILED)
  const queued = await insert('elsewhere.filtered', 1)
  await insert('elsewhere.filtered', 1, { ...FAILED, id: old })
  const state = (name: string) => jobs.getByRole('button', { name: new RegExp(`^${name} \\d`) })
  await jobs.getByLabel('Kind').fill('elsewhere.filtered')
  await untilIds(jobs, [...queued, ...failed, old])
  await untilText(state('failed'), /failed 3/)
  await state('failed').click()
  await untilIds(jobs, [...failed, old])
  expect(await state('failed').getAttribute('aria-pressed')).toBe('true')
  await button(jobs, 'Last hour').click()
  await untilIds(jobs, failed)
  await untilText(state('failed'), /failed 2/)
  await page.reload()
  await untilIds(jobs, failed)
  expect(await jobs.getByLabel('Kind').inputValue()).toBe('elsewhere.filtered')
  expect(await button(jobs, 'Last hour').getAttribute('aria-pressed')).toBe('true')
  await button(jobs, 'Any time').click()
  await button(jobs, 'All').click()
  await untilIds(jobs, [...queued, ...failed, old])
  await jobs.getByLabel('Kind').fill('no.such')
  await untilText(jobs.locator('.empty'), /No jobs match/)
})

test('a dedupe key finds the unfinished job that has it', async () => {
  const { jobs } = await openJobs()
  const ids = await insert('elsewhere.keyed', 1, { state: 'queued', dedupe_key: 'order 7' })
  await jobs.getByLabel('Dedupe key').fill('order 7')
  await untilIds(jobs, ids)
})

test('all failed jobs that match are retried after a question with their number', async () => {
  const { page, jobs } = await openJobs()
  await insert('elsewhere.retried', 30, FAILED)
  const others = await insert('elsewhere.left', 1, FAILED)
  await jobs.getByLabel('Kind').fill('elsewhere.retried')
  const retry = button(jobs, 'Retry all 30 failed')
  await retry.press('Enter')
  const dialog = page.getByRole('dialog', { name: 'Retry 30 failed jobs?' })
  await dialog.waitFor()
  await page.keyboard.press('Escape')
  await dialog.waitFor({ state: 'detached' })
  expect(await retry.isVisible()).toBe(true)
  await retry.click()
  await button(dialog, 'Retry 30 jobs').click()
  await untilText(jobs, /Queued again: 30 jobs\./)
  await untilText(jobs, /queued 30/)
  await until(async () => !(await retry.isVisible()), 'there is nothing left to retry')
  const { state } = await site.database
    .withSignal()
    .selectFrom('job')
    .select('state')
    .where('id', '=', others[0] ?? '')
    .executeTakeFirstOrThrow()
  expect(state).toBe('failed')
})

test('an older page stays as it is while new jobs come', async () => {
  const { page, jobs } = await openJobs()
  const kind = 'elsewhere.paged'
  const ids = await insert(kind, 30)
  await jobs.getByLabel('Kind').fill(kind)
  await page.waitForURL(/#jobs\?kind=elsewhere\.paged$/)
  await untilIds(jobs, ids.slice(0, 12))
  await button(jobs, 'Older').press('Enter')
  await untilIds(jobs, ids.slice(12, 24))
  await untilText(jobs, /Page 2/)
  const newest = await insert(kind, 3)
  await page.waitForResponse(/\/v1\/jobs\?.*cursor=/)
  await page.waitForResponse(/\/v1\/jobs\?.*cursor=/)
  expect(await idsOf(jobs)).toEqual(ids.slice(12, 24))
  await button(jobs, 'Older').click()
  await untilIds(jobs, ids.slice(24))
  expect(await button(jobs, 'Older').count()).toBe(0)
  for (let page = 0; page < 2; page++) await button(jobs, 'Newer').click()
  await untilIds(jobs, [...newest, ...ids].slice(0, 12))
})

test('a kind without a handler is not retried from its row, and says why', async () => {
  const { rowOf } = await openJobs()
  const [id = ''] = await insert('elsewhere.unknown', 1, FAILED)
  await rowOf(id).getByText('No handler here').waitFor()
  expect(await action(rowOf(id), 'Retry').count()).toBe(0)
})

test('queues show what waits in them, and stop while they are paused', async () => {
  const { jobs } = await openJobs()
  await insert('elsewhere.queued', 3, { state: 'queued', queue: 'elsewhere' })
  await jobs.locator('summary', { hasText: 'Queues' }).click()
  const row = jobs.getByRole('row', { name: /^reports/ })
  await button(row, 'Pause reports').press('Enter')
  await untilText(row, /paused/)
  await untilText(jobs.locator('summary', { hasText: 'Queues' }), /reports: paused/)
  await untilText(jobs, /elsewhere30no process runs it/)
  const { id } = await accept(site.url, 'a,b\n1,2\n', {
    query: '?groupBy=a',
    headers: site.operator,
  })
  await button(row, 'Resume reports').press('Enter')
  await untilText(row, /runs/)
  await untilFinished(site.url, id, undefined, site.operator)
})

test('a parked job says why, is counted, and is cancelled', async () => {
  const { jobs, rowOf } = await openJobs()
  const [id = ''] = await insert('elsewhere.gone', 1, { state: 'parked' })
  await jobs.getByLabel('Kind').fill('elsewhere.gone')
  await untilText(rowOf(id), /parked.*No process has handled this kind for a day/)
  await untilText(jobs, /parked 1/)
  await action(rowOf(id), 'Cancel').click()
  await untilState(rowOf(id), 'cancelled')
})

test('a schedule has its time zone, last and next run, and is run, paused and resumed by buttons', async () => {
  const { page, jobs } = await openJobs()
  await jobs.getByText('Schedules', { exact: true }).click()
  const row = jobs.getByRole('row', { name: /^report\.sweep/ })
  // It may have run by itself meanwhile.
  await untilText(row, /41 \* \* \* \*.*UTC.*(None yet|\d\d:41:00 \w+).*\d\d:41:00/)
  await button(row, 'Run now report.sweep').click()
  await untilText(jobs, /report\.sweep is queued\./)
  await untilText(row, /\d\d:\d\d:\d\d (queued|running|succeeded)/)
  const pause = button(row, 'Pause report.sweep')
  await pause.focus()
  await page.keyboard.press('Enter')
  await untilText(row, /paused/)
  const resume = button(row, 'Resume report.sweep')
  expect(await resume.evaluate((one) => one === one.ownerDocument.activeElement)).toBe(true)
  await page.keyboard.press('Enter')
  await until(async () => (await row.getByText('paused').count()) === 0, 'it is resumed')
  await untilText(row, /\d\d:41:00/)
})

test('axe finds nothing serious in an open row, the schedules and the question', async () => {
  const { page, jobs, rowOf } = await openJobs({ reducedMotion: 'reduce' })
  const { id } = await accept(site.url, 'a,b\n1,2\n', {
    query: '?groupBy=colour',
    headers: site.operator,
  })
  await untilState(rowOf(id), 'failed')
  await rowOf(id).getByRole('button', { expanded: false }).click()
  await untilText(rowOf(id), /Last error.*Input/s)
  for (const hasText of ['Queues', 'Schedules']) await jobs.locator('summary', { hasText }).click()
  await untilText(jobs, /report\.sweep/)
  await expectGoodLooks(page, 'jobs-open')
  await jobs.getByRole('button', { name: /^Retry all/ }).click()
  await page.getByRole('dialog').waitFor()
  await expectGoodLooks(page, 'jobs-question')
})

test('rows stay when the service is away, and are up to date when it is back', async () => {
  const { page, jobs } = await openJobs({
    tolerate: [
      /ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE|ERR_FAILED|closed before/,
    ],
  })
  const kind = 'elsewhere.offline'
  const before = await insert(kind, 2)
  await jobs.getByLabel('Kind').fill(kind)
  await untilIds(jobs, before)
  await site.kill()
  await untilText(page.locator('#connection'), /lost/)
  const after = await insert(kind, 1)
  expect(await idsOf(jobs)).toEqual(before)
  await site.start()
  await untilIds(jobs, [...after, ...before])
})
