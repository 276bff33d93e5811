import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { parse } from 'csv-parse/sync'
import { describe, expect, onTestFinished, test } from 'vitest'
import { usePool } from '../../../packages/workpool/test/support/pool.ts'
import {
  type ColumnSummary,
  type Summary,
  type SummaryOptions,
  type SummaryOutcome,
  summariseCsv,
} from '../../../src/features/reports/contract.ts'
import { tableCsv } from '../../support/reports.ts'

type Cells = Record<string, string>

/**
 * Sums of floating-point numbers differ by the order in which they are added: relative, in the last
 * digits only.
 */
const TOLERANCE = 1e-9

async function outcomeOf(
  file: string,
  options: Partial<SummaryOptions> = {},
): Promise<SummaryOutcome> {
  const { pool } = await usePool({
    threads: 1,
    entry: new URL('../../../src/thread.ts', import.meta.url),
  })
  const folder = await mkdtemp(join(tmpdir(), 'offloop-summary-'))
  onTestFinished(() => rm(folder, { recursive: true }))
  const input = {
    file,
    folder,
    memoryMb: 128,
    groupBy: null,
    value: null,
    delimiter: null,
    ...options,
  }
  return pool.run(summariseCsv, input, { isolation: 'process' })
}

async function summaryOf(file: string, options?: Partial<SummaryOptions>): Promise<Summary> {
  const outcome = await outcomeOf(file, options)
  if (!outcome.ok) throw new Error(outcome.reason)
  return outcome.summary
}

async function reasonOf(
  content: string | Buffer,
  options?: Partial<SummaryOptions>,
): Promise<string> {
  const outcome = await outcomeOf(await fileOf(content), options)
  return outcome.ok ? expect.unreachable('It was summarised') : outcome.reason
}

async function fileOf(content: string | Buffer): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'offloop-csv-'))
  onTestFinished(() => rm(folder, { recursive: true }))
  const file = join(folder, 'upload')
  await writeFile(file, content)
  return file
}

const columnOf = ({ columns }: Summary, name: string) =>
  columns.find((column) => column.name === name) as ColumnSummary

const near = (expected: number) => {
  const slack = Math.abs(expected) * TOLERANCE
  return {
    asymmetricMatch: (actual: unknown) => Math.abs(Number(actual) - expected) <= slack,
    toString: () => `near ${expected}`,
  }
}

/** The same figures, worked out here from numbers as they stand in the file. */
function expectNumbers(column: ColumnSummary, cells: string[]) {
  const values = cells.filter((cell) => cell !== '').map(Number)
  const sorted = values.toSorted((a, b) => a - b)
  const [min, max] = [sorted[0] as number, sorted.at(-1) as number]
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1)
  expect(column).toMatchObject({
    nulls: cells.length - values.length,
    distinct: new Set(values).size,
    min,
    max,
  })
  expect(column.mean).toEqual(near(mean))
  expect(column.standardDeviation).toEqual(near(Math.sqrt(variance)))
  for (const [share, value] of Object.entries(column.quantiles ?? {}))
    expect(value).toEqual(near(quantile(sorted, Number(share))))
  expect(Object.keys(column.quantiles ?? {})).toEqual(['0.05', '0.25', '0.5', '0.75', '0.95'])
  expectHistogram(column, values, min, max)
}

/** By interpolation between the two values around it. */
function quantile(sorted: number[], share: number): number {
  const place = share * (sorted.length - 1)
  const [below, above] = [sorted[Math.floor(place)] as number, sorted[Math.ceil(place)] as number]
  return below + (above - below) * (place - Math.floor(place))
}

function expectHistogram(
  { histogram = [] }: ColumnSummary,
  values: number[],
  min: number,
  max: number,
) {
  const counts = Array.from({ length: 20 }, () => 0)
  for (const value of values) {
    const bin = Math.min(19, Math.floor((value - min) / ((max - min) / 20)))
    counts[bin] = (counts[bin] as number) + 1
  }
  expect(histogram.map(({ count }) => count)).toEqual(counts)
  expect([histogram[0]?.from, histogram.at(-1)?.to]).toEqual([min, max])
  for (const [index, { to }] of histogram.slice(0, -1).entries())
    expect(to).toBe(histogram[index + 1]?.from)
}

function expectTexts(column: ColumnSummary, cells: string[]) {
  const counts = Map.groupBy(
    cells.filter((cell) => cell !== ''),
    (cell) => cell,
  )
  const largest = [...counts.values()].map(({ length }) => length).toSorted((a, b) => b - a)
  expect(column).toMatchObject({
    type: 'text',
    nulls: cells.filter((cell) => cell === '').length,
    distinct: counts.size,
  })
  expect(column.top?.map(({ count }) => count)).toEqual(largest.slice(0, 10))
  for (const { value, count } of column.top ?? []) expect(counts.get(value)?.length).toBe(count)
}

describe('tables, worked out here from the parsed rows', () => {
  test.each([
    {
      name: 'weather',
      numbers: ['precipitation', 'temp_max', 'temp_min', 'wind'],
      texts: ['weather'],
    },
    {
      name: 'airports',
      numbers: ['latitude', 'longitude', 'passengers'],
      texts: ['name', 'state'],
    },
  ] as const)('$name', async ({ name, numbers, texts }) => {
    const rows: Cells[] = parse(tableCsv(name), { columns: true })
    const summary = await summaryOf(await fileOf(tableCsv(name)))
    expect(summary.rows).toBe(rows.length)
    expect(summary.rejected).toEqual({ rows: 0, reasons: {}, first: [] })
    expect(summary.approximate).toBe(false)
    expect(summary.columns.map(({ name }) => name)).toEqual(Object.keys(rows[0] ?? {}))
    const cellsOf = (column: string) => rows.map((row) => row[column] ?? '')
    for (const column of numbers) expectNumbers(columnOf(summary, column), cellsOf(column))
    for (const column of texts) expectTexts(columnOf(summary, column), cellsOf(column))
  })

  test('days are dates, with a histogram of their own', async () => {
    const rows: Cells[] = parse(tableCsv('weather'), { columns: true })
    const days = rows.map(({ date = '' }) => date).toSorted()
    const { type, format, min, max, distinct, quantiles, histogram } = columnOf(
      await summaryOf(await fileOf(tableCsv('weather'))),
      'date',
    )
    expect({ type, format, min, max, distinct }).toEqual({
      type: 'date',
      format: 'YYYY-MM-DD',
      min: days[0],
      max: days.at(-1),
      distinct: days.length,
    })
    expect(quantiles?.['0.5']).toBe(days[(days.length - 1) / 2])
    expect(histogram?.reduce((sum, { count }) => sum + count, 0)).toBe(rows.length)
    expect([histogram?.length, histogram?.[0]?.from, histogram?.at(-1)?.to]).toEqual([20, min, max])
  })

  test('groups are counted and summed up, the largest first', async () => {
    const rows: Cells[] = parse(tableCsv('weather'), { columns: true })
    const { groups } = await summaryOf(await fileOf(tableCsv('weather')), {
      groupBy: 'weather',
      value: 'precipitation',
    })
    const expected = [...Map.groupBy(rows, ({ weather = '' }) => weather)].map(([key, members]) => {
      const sum = members.reduce((total, { precipitation }) => total + Number(precipitation), 0)
      return { key, count: members.length, sum: near(sum), mean: near(sum / members.length) }
    })
    expect(groups?.total).toBe(expected.length)
    expect(groups?.first).toEqual(expected.toSorted((a, b) => b.count - a.count))
  })

  test('gzip makes no difference', async () => {
    const plain = await summaryOf(await fileOf(tableCsv('airports')), { groupBy: 'state' })
    expect(
      await summaryOf(await fileOf(gzipSync(tableCsv('airports'))), { groupBy: 'state' }),
    ).toEqual(plain)
  })
})

test('of more than 1 000 groups the first 1 000 are given, by size and then by key', async () => {
  const lines = Array.from(
    { length: 3_000 },
    (_, row) => `key ${String(row % 1_500).padStart(4, '0')}`,
  )
  const { groups } = await summaryOf(await fileOf(`key\n${lines.join('\n')}\nkey 1499\n`), {
    groupBy: 'key',
  })
  expect([groups?.total, groups?.first.length]).toEqual([1_500, 1_000])
  expect(groups?.first.slice(0, 2)).toEqual([
    { key: 'key 1499', count: 3, sum: null, mean: null },
    { key: 'key 0000', count: 2, sum: null, mean: null },
  ])
})

test('in a file of more than a million rows quantiles are within 1 % of their rank, and distinct within 10 %', async () => {
  const rows = 1_100_000
  const { approximate, columns } = await summaryOf(
    await fileOf(
      `n\n${Array.from({ length: rows }, (_, row) => (row * 7_919) % rows).join('\n')}\n`,
    ),
  )
  expect(approximate).toBe(true)
  for (const [share, value] of Object.entries(columns[0]?.quantiles ?? {}))
    expect(Math.abs(Number(value) / rows - Number(share))).toBeLessThan(0.01)
  expect(Math.abs(Number(columns[0]?.distinct) / rows - 1)).toBeLessThan(0.1)
})

describe('rows that do not parse', () => {
  const lines = [
    'id,name,amount',
    ...Array.from({ length: 30_000 }, (_, row) => `${row + 1},name ${row % 3},${(row + 1) * 1.5}`),
  ]
  lines[5] = '5,too few'
  lines[9] = '9,too many,1,2,3'
  lines[25_000] = '25000,"not closed"x,abc'

  test('are counted, quoted with their line, and left out of everything else', async () => {
    const { rows, rejected, columns } = await summaryOf(await fileOf(`${lines.join('\n')}\n`))
    expect(rows).toBe(29_997)
    expect(rejected).toEqual({
      rows: 3,
      reasons: {
        'It has too few columns': 1,
        'It has too many columns': 1,
        'A quote is not closed, or something follows it': 1,
      },
      first: [
        { line: 6, column: 'amount', reason: 'It has too few columns', text: '5,too few' },
        { line: 10, column: null, reason: 'It has too many columns', text: '9,too many,1,2,3' },
        {
          line: 25_001,
          column: null,
          reason: 'A quote is not closed, or something follows it',
          text: '25000,"not closed"x,abc',
        },
      ],
    })
    expect(columns[2]).toMatchObject({ type: 'number', nulls: 0, max: 45_000 })
  })

  test('are quoted up to the 20th, and counted beyond', async () => {
    const many = lines.map((line, index) => (index > 20_500 && index % 100 === 0 ? 'broken' : line))
    const { rejected } = await summaryOf(await fileOf(gzipSync(`${many.join('\n')}\n`)))
    expect([rejected.rows, rejected.first.length]).toEqual([3 + 94, 20])
    expect(rejected.first.at(-1)).toMatchObject({ line: 22_301, text: 'broken' })
  })
})

test('figures that no double can hold are null', async () => {
  const { columns } = await summaryOf(await fileOf('a\n1e+308\n1e+308\n-1.5e-300\n'))
  expect(columns[0]).toMatchObject({
    type: 'number',
    min: -1.5e-300,
    max: 1e308,
    mean: null,
    standardDeviation: null,
  })
})

test('names with quotes in them are names', async () => {
  const summary = await summaryOf(await fileOf('"a ""b"", \'c\'",v\nx,1\nx,2\n'), {
    groupBy: 'a "b", \'c\'',
    value: 'v',
  })
  expect(summary.groups?.first).toEqual([{ key: 'x', count: 2, sum: 3, mean: 1.5 }])
})

describe('what cannot be summarised fails in words for people', () => {
  const broken = gzipSync(
    `a,b\n${Array.from({ length: 50_000 }, (_, row) => `${row},${row * 7}`).join('\n')}\n`,
  )
  const damaged = Buffer.from(broken)
  damaged.writeUInt8(damaged.readUInt8(damaged.length >> 1) ^ 0xff, damaged.length >> 1)

  test.each<[string, string | Buffer, string]>([
    ['an empty file', '', 'The file is empty'],
    ['blank lines', ' \n\n', 'The file is empty'],
    ['a header alone', 'a,b\n', 'The file is empty but for its header'],
    [
      'a picture',
      Buffer.from('89504e470d0a1a0a0000000d', 'hex'),
      'The file is not a CSV: it holds binary data',
    ],
    ['a page', '<!DOCTYPE html><p>Hello, you</p>', 'The file is not a CSV but HTML or XML'],
    ['JSON', '[{"a": 1}]', 'The file is not a CSV but JSON'],
    ['UTF-16', Buffer.from('\ufeffa,b\n1,2\n', 'utf16le'), 'The file is UTF-16: save it as UTF-8'],
    [
      'half a gzip file',
      broken.subarray(0, broken.length / 2),
      'The file is gzip but broken: it cannot be unzipped',
    ],
    ['a damaged gzip file', damaged, 'The file is gzip but broken: it cannot be unzipped'],
  ])('%s', async (_, content, reason) => {
    expect(await reasonOf(content)).toBe(reason)
  })

  test('a column that is missing', async () => {
    expect(await reasonOf('a,b\n1,2\n', { groupBy: 'c' })).toBe(
      'There is no column "c"; the file has "a", "b"',
    )
  })

  test('a column of texts to be summed up', async () => {
    const reason = 'The column "b" cannot be summed up: it does not hold numbers only'
    expect(await reasonOf('a,b\n1,x\n', { groupBy: 'a', value: 'b' })).toBe(reason)
  })
})
