import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Page } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { accept, untilFinished } from '../support/reports.ts'
import { request } from '../support/service.ts'
import { until } from '../support/until.ts'
import { holdReports } from './support/hold-reports.ts'
import { newSlowCsv } from './support/new-slow-csv.ts'
import { button, panel, untilLive, untilText } from './support/panels.ts'
import { startSite } from './support/site.ts'

/** Far beyond what any file here takes. */
const SUMMARISED_MS = 60_000
const PHONE = { width: 390, height: 844 }
const folder = mkdtempSync(join(tmpdir(), 'offloop-csv-'))
const slow = join(folder, 'slow.csv')
let site: Awaited<ReturnType<typeof startSite>>

beforeAll(async () => {
  writeFileSync(slow, newSlowCsv())
  site = await startSite()
})
afterAll(async () => {
  rmSync(folder, { recursive: true })
  await site.close()
})

async function openReports(options?: Parameters<typeof site.open>[0]) {
  const page = await site.open(options)
  await untilLive(page)
  const reports = panel(page, 'reports')
  return {
    page,
    reports,
    file: reports.locator('input[type=file]'),
    status: reports.getByRole('status'),
  }
}

const csv = (text: string, name = 'small.csv') => ({
  name,
  mimeType: 'text/csv',
  buffer: Buffer.from(text),
})

/** Keeps every value that the progress bar of the report takes, with what is said beside it. */
const watchProgress = (page: Page) =>
  panel(page, 'reports').evaluate((section) => {
    const seen: [string, number][] = []
    Object.assign(section, { seen })
    const [bar, status] = [
      section.querySelector('progress'),
      section.querySelector('[role=status]'),
    ]
    const look = () => bar.hidden || seen.push([status.textContent, bar.value])
    const { MutationObserver } = section.ownerDocument.defaultView
    new MutationObserver(look).observe(section, {
      subtree: true,
      childList: true,
      attributes: true,
      characterData: true,
    })
  })

const progressSeen = (page: Page): Promise<[string, number][]> =>
  panel(page, 'reports').evaluate(({ seen }) => seen)

test('a CSV becomes a table and bars, by way of its upload and the progress of its job', async () => {
  const { page, reports, file, status } = await openReports()
  await watchProgress(page)
  await file.setInputFiles(slow)
  await reports.getByLabel('Group by').fill('word')
  await reports.getByLabel('Sum up').fill('number')
  await button(reports, 'Summarise').click()
  await untilText(status, /^Done$/, SUMMARISED_MS)

  const seen = await progressSeen(page)
  expect(seen.some(([text]) => /^Uploading slow\.csv$/.test(text))).toBe(true)
  expect(
    seen.some(([text, value]) => text.startsWith('Summarising') && value > 0 && value < 1),
  ).toBe(true)

  expect(await reports.locator('tbody th .name').allTextContents()).toEqual([
    'id',
    'number',
    'word',
  ])
  expect(await reports.locator('.spark').first().locator('i').count()).toBe(20)
  await untilText(reports, /Sum of number by word, the 8 with the most rows, of 9,974/)
  expect(await reports.locator('.bars li').count()).toBe(8)
})

test('the example is at hand for those who have no CSV', async () => {
  const { reports, status } = await openReports()
  await button(reports, 'Take an example').click()
  await untilText(reports.locator('.drop'), /^orders\.csv, [\d.]+ MiB$/)
  await button(reports, 'Summarise').click()
  await untilText(status, /^Done$/, SUMMARISED_MS)
  await untilText(
    reports.locator('.title'),
    /^orders\.csv: 150,000 rows, 6 columns, summarised in [\d.]+ m?s$/,
  )
  await untilText(reports, /Sum of total by region, 5 of them/)
})

test('cancelling ends the job, and the upload before it', async () => {
  const { reports, file, status } = await openReports()
  await holdReports(site)
  await file.setInputFiles(slow)
  await button(reports, 'Summarise').click()
  await untilText(status, /^Summarising/)
  await button(reports, 'Cancel report of slow.csv').click()
  await untilText(status, /^Cancelled$/)
  const newest = async () => {
    const { body } = await request(
      `${site.url}/v1/reports?limit=1`,
      'GET',
      undefined,
      site.operator,
    )
    return body.items[0]
  }
  const { id, state } = await newest()
  expect(state).toBe('cancelled')

  await reports.evaluate((section) => {
    section.querySelector('button.primary').click()
    section.querySelector('.work button').click()
  })
  await untilText(status, /^Cancelled$/)
  expect((await newest()).id).toBe(id)
})

test('what is wrong with a file is said in words', async () => {
  const { reports, file, status } = await openReports({ tolerate: [/status of 422/] })
  await file.setInputFiles(csv('a,b\n1,2\n'))
  await reports.getByLabel('Group by').fill('colour')
  await button(reports, 'Summarise').click()
  await untilText(status, /^There is no column "colour"; the file has "a", "b"$/)
  expect(await status.getAttribute('class')).toContain('error')

  await reports.getByLabel('Group by').fill('')
  await reports.getByLabel('Sum up').fill('b')
  await button(reports, 'Summarise').click()
  await untilText(status, /^Give groupBy, too: the column to sum up by$/)
})

test('a file may be dropped', async () => {
  const { reports, status } = await openReports()
  const dataTransfer = await reports.evaluateHandle((section) => {
    const transfer = new section.ownerDocument.defaultView.DataTransfer()
    transfer.items.add(
      new File(['kind,price\na,1.5\na,2.5\nb,oops\n'], 'dropped.csv', { type: 'text/csv' }),
    )
    return transfer
  })
  await reports.locator('.drop').dispatchEvent('drop', { dataTransfer })
  await untilText(reports.locator('.drop'), /^dropped\.csv, 30 B$/)
  await button(reports, 'Summarise').click()
  await untilText(status, /^Done$/)
  await untilText(reports, /3 rows, 2 columns/)
})

test('what was found out about a file goes when another one is chosen', async () => {
  const { reports, file, status } = await openReports()
  await file.setInputFiles(csv('a,b\n1,2\n', 'first.csv'))
  await button(reports, 'Summarise').click()
  await untilText(reports.locator('.title'), /^first\.csv: 1 row, 2 columns/)

  await reports.getByLabel('Group by').fill('a')
  expect(await reports.locator('.title').isVisible()).toBe(true)
  await file.setInputFiles(csv('a\n1\n', 'second.csv'))
  await until(async () => (await reports.locator('.title').count()) === 0, 'the result is gone')
  expect(await status.isVisible()).toBe(false)
})

test('what is wrong with a file is no longer said once the user changes something', async () => {
  const { reports, file, status } = await openReports()
  await file.setInputFiles(csv('a,b\n1,2\n'))
  await reports.getByLabel('Group by').fill('colour')
  await button(reports, 'Summarise').click()
  await untilText(status, /^There is no column "colour"/)
  await reports.getByLabel('Group by').fill('a')
  expect(await status.isVisible()).toBe(false)
})

test('a button that cannot be used says why', async () => {
  const { reports, file, status } = await openReports()
  const submit = button(reports, 'Summarise')
  const reason = async () => {
    const ids = (await submit.getAttribute('aria-describedby'))?.split(' ') ?? []
    return reports.locator(`#${ids.at(-1)}`).innerText()
  }
  expect([await submit.isDisabled(), await reason()]).toEqual([true, 'Choose a file first'])
  await file.setInputFiles(slow)
  expect([await submit.isDisabled(), await reason()]).toEqual([false, ''])
  await holdReports(site)
  await submit.click()
  await untilText(status, /^(Queued|Summarising) slow\.csv/)
  expect([await submit.isDisabled(), await reason()]).toEqual([
    true,
    'Wait for slow.csv, or cancel it',
  ])
  await button(reports, 'Cancel report of slow.csv').click()
  await untilText(status, /^Cancelled$/)
  expect([await submit.isDisabled(), await reason()]).toEqual([false, ''])
})

test('rows that could not be read are shown with their lines and reasons, the first 20 of them', async () => {
  const { reports, file, status } = await openReports()
  const bad = Array.from({ length: 1_000 }, () => '<b>oops</b>')
  await file.setInputFiles(csv(['a,b', '1,2', '', '3,4,5', ...bad].join('\n')))
  await button(reports, 'Summarise').click()
  await untilText(status, /^Done$/)
  await untilText(reports, /1,002 rows could not be read/)
  const rows = reports.getByRole('region', { name: 'Rows that could not be read' })
  const lines = await rows.locator('tbody tr').allInnerTexts()
  expect(lines).toHaveLength(20)
  expect(lines.slice(0, 3).map((line) => line.split(/\s*\t\s*/))).toEqual([
    ['3', 'It is empty', ''],
    ['4', 'It has too many columns', '3,4,5'],
    ['5', 'It has too few columns: “b” is missing', '<b>oops</b>'],
  ])
  await untilText(reports, /and 982 more\. By reason: .*It has too few columns: 1,000/)
})

test('bars start from zero, to the left for negative sums', async () => {
  const { page, reports, file, status } = await openReports({ viewport: PHONE })
  await file.setInputFiles(csv('kind,value\nloss,-30\nloss,-30\ngain,20\nnone,-0.0\n'))
  await reports.getByLabel('Group by').fill('kind')
  await reports.getByLabel('Sum up').fill('value')
  await button(reports, 'Summarise').click()
  await untilText(status, /^Done$/)
  expect(await reports.locator('.bars b').allTextContents()).toEqual(['-60', '20', '0'])
  const bars = await reports.locator('.bar').evaluateAll((bars) =>
    bars.map((bar) => {
      const { getComputedStyle } = bar.ownerDocument.defaultView
      const [mark, line] = ['::before', '::after'].map((part) => getComputedStyle(bar, part))
      const share = (text: string) =>
        Math.round((100 * Number.parseFloat(text)) / bar.getBoundingClientRect().width)
      return [share(mark.left), share(mark.width), share(line.left)]
    }),
  )
  expect(bars).toEqual([
    [0, 75, 75],
    [75, 25, 75],
    [75, 0, 75],
  ])
  expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(PHONE.width)
})

test('estimates are marked as such', async () => {
  const { reports, file, status } = await openReports()
  const distinct = () => reports.locator('tbody tr').first().locator('td').nth(1).textContent()
  const numbers = Array.from({ length: 1_000_001 }, (_, row) => row % 5_000)
  await file.setInputFiles(csv(`n\n${numbers.join('\n')}\n`))
  await button(reports, 'Summarise').click()
  await untilText(status, /^Done$/, SUMMARISED_MS)
  expect(await distinct()).toMatch(/^≈ [45],\d{3}$/)
  await untilText(reports, /≈ An estimate, as in every file of more than a million rows/)

  await file.setInputFiles(csv('n\n1\n2\n'))
  await button(reports, 'Summarise').click()
  await untilText(status, /^Done$/)
  expect(await distinct()).toBe('2')
  expect(await reports.textContent()).not.toContain('≈')
})

test('values are shown as their column is: texts, numbers, dates and times whole', async () => {
  const { reports, file, status } = await openReports()
  const rows = [
    'name,small,long,day,at',
    'Table,0.004,9007199254740993,2024-05-01,2024-05-01T10:30:00',
    'East Timor,0.123,12345678901234567890123456789012345678,2024-05-03,2024-05-03T11:45:00',
    'Tea,0.0004,9007199254740994,2024-05-02,2024-05-02T00:00:00',
  ]
  await file.setInputFiles(csv(`${rows.join('\n')}\n`))
  await reports.getByLabel('Group by').fill('name')
  await reports.getByLabel('Sum up').fill('long')
  await button(reports, 'Summarise').click()
  await untilText(status, /^Done$/, SUMMARISED_MS)
  const valuesOf = async (row: number) =>
    (await reports.locator('tbody tr').nth(row).locator('td').allTextContents()).slice(2, 4)
  expect(await valuesOf(0)).toEqual(['East Timor', 'Tea'])
  expect(await valuesOf(1)).toEqual(['0.0004', '0.123'])
  expect(await valuesOf(2)).toEqual([
    '9,007,199,254,740,993',
    '12,345,678,901,234,567,890,123,456,789,012,345,678',
  ])
  expect(await valuesOf(3)).toEqual(['2024-05-01', '2024-05-03'])
  expect(await valuesOf(4)).toEqual(['2024-05-01 10:30:00', '2024-05-03 11:45:00'])
  const figures = await reports.locator('.bars b').allTextContents()
  expect(figures.toSorted()).toEqual([
    '12,345,678,901,234,567,890,123,456,789,012,345,678',
    '9,007,199,254,740,993',
    '9,007,199,254,740,994',
  ])
})

test('an EventSource hears once of a report that has finished, and stops', async () => {
  // The browser says that 204 is no stream, which is what stops it.
  const { page } = await openReports({ tolerate: [/EventSource/] })
  const report = await accept(site.url, 'a,b\n1,2\n', { headers: site.operator })
  await untilFinished(site.url, report.id, SUMMARISED_MS, site.operator)
  await page.evaluate(`
    window.finishes = []
    window.source = new EventSource('/v1/reports/${report.id}/events')
    source.addEventListener('report.finished', ({ data }) => finishes.push(JSON.parse(data)))`)
  await until(
    () => page.evaluate('source.readyState === EventSource.CLOSED'),
    'it has stopped',
    SUMMARISED_MS,
  )
  expect(await page.evaluate('finishes')).toEqual([{ id: report.id, state: 'succeeded' }])
})

test('a report that ends while the page hears nothing is shown nevertheless', async () => {
  // The page's own probes of the service fail meanwhile, as they should.
  const { page, reports, file, status } = await openReports({
    tolerate: [/ERR_INTERNET_DISCONNECTED/],
  })
  const session = await page.context().newCDPSession(page)
  await file.setInputFiles(slow)
  await button(reports, 'Summarise').click()
  await untilText(status, /^Summarising/)
  await session.send('Network.emulateNetworkConditions', {
    offline: true,
    latency: 0,
    downloadThroughput: -1,
    uploadThroughput: -1,
  })
  await session.detach()
  await until(
    async () => /^Done$/.test((await status.textContent()) ?? ''),
    'the result is there',
    SUMMARISED_MS,
  )
})

test('that the service cannot be reached is said until the connection is back', async () => {
  const { page, reports, file, status } = await openReports({ tolerate: [/ERR_|WebSocket/] })
  await file.setInputFiles(csv('a,b\n1,2\n'))
  await page.route('**/v1/reports?', (route) => route.abort('internetdisconnected'))
  await button(reports, 'Summarise').click()
  await untilText(status, /^The service cannot be reached$/)
  await page.unroute('**/v1/reports?')
  expect(await status.isVisible()).toBe(true)
  await site.kill()
  await untilText(page.locator('#connection'), /lost/)
  await site.start()
  await untilLive(page)
  await until(async () => !(await status.isVisible()), 'it is no longer said')
  await button(reports, 'Summarise').click()
  await untilText(status, /^Done$/)
})
