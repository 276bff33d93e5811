import { gzipSync } from 'node:zlib'
import { expect, test } from 'vitest'
import { InvalidCsvError } from '../../../src/features/reports/csv.ts'
import { scanCsv } from '../../../src/features/reports/scan.ts'
import {
  expectedGroups,
  expectedOf,
  isNamedLike,
  plainOf,
  recordsOf,
} from '../../support/expected-summary.ts'
import { randomCsv, randomSoup } from '../../support/random-csv.ts'
import { summaries } from '../../support/summaries.ts'

/**
 * `RANDOM_CSV_FILES=20000 RANDOM_CSV_SEED=7 npx vitest run
 * test/features/reports/random-csv.test.ts` tries others, and more.
 */
const FILES = Number(process.env['RANDOM_CSV_FILES'] ?? 2_000)
const SEED = Number(process.env['RANDOM_CSV_SEED'] ?? 1)
const MS_PER_FILE = 100
const TOP = 10
const MAX_GROUPS = 1_000
const DOUBLE_DIGITS = 15
const TOLERANCE = 1e-9

const { summarise, withFile } = summaries()

async function check(seed: number) {
  const { bytes, delimiter, requested, groupBy } = randomCsv(seed)
  const [header = [], ...records] = recordsOf(bytes, delimiter)
  const { rows, columns } = expectedOf(header, records)
  const isUnique = (name: string | undefined) =>
    name !== '' && header.filter((other) => other === name).length === 1
  const summed = columns.findIndex(({ type }, index) => isNumber(type) && isUnique(header[index]))
  const isGrouped = isUnique(header[groupBy])
  const grouping = { groupBy: header[groupBy] as string, value: header[summed] ?? null }
  const file = seed % 5 === 0 ? gzipSync(bytes, { level: 1 }) : bytes
  const summary = await summarise(file, { delimiter: requested, ...(isGrouped && grouping) }).catch(
    unlessInvalid,
  )
  if (!summary) return expect(rows).toEqual([])

  expect(summary.delimiter).toBe(delimiter)
  expect([summary.rows, summary.rows + summary.rejected.rows]).toEqual([
    rows.length,
    records.length,
  ])
  const names = summary.columns.map(({ name }) => name)
  expect(isNamedLike(names, header), `${JSON.stringify(names)} are ${JSON.stringify(header)}`).toBe(
    true,
  )
  const shown = summary.columns.map(({ type, format, nulls, distinct, min, max }) => {
    const show = isNumber(type) ? plainOf : (value: unknown) => value
    return { type, format, nulls, distinct, min: show(min), max: show(max) }
  })
  expect(shown).toEqual(columns)
  for (const [
    index,
    { type, top, mean, quantiles = {}, histogram = [], nulls },
  ] of summary.columns.entries()) {
    if (isNumber(type)) expectFigures(rows, index, mean, quantiles)
    const frequent = expectedGroups(rows, index).filter(({ key }) => key !== null)
    if (top)
      expect(top).toEqual(frequent.slice(0, TOP).map(({ key, count }) => ({ value: key, count })))
    else expect(histogram.reduce((sum, { count }) => sum + count, 0)).toBe(rows.length - nulls)
  }
  if (!isGrouped) return expect(summary.groups).toBeNull()

  // The sums of numbers with exponents are those of doubles.
  const isRounded = rows.some((row) => /e/i.test(row[summed] ?? ''))
  const sumOf = (sum: unknown) => (isRounded ? null : plainOf(sum))
  const groups = expectedGroups(rows, groupBy, summed).map((group) => ({
    ...group,
    sum: sumOf(group.sum),
  }))
  const [first, expected] = [summary.groups?.first ?? [], groups.slice(0, MAX_GROUPS)]
  expect(first.map(({ key, count }) => ({ key, count }))).toEqual(
    expected.map(({ key, count }) => ({ key, count })),
  )
  // Those that are shown alike, because they differ late only, have no order of their own.
  const sums = first.map(({ key, count, sum }) => JSON.stringify({ key, count, sum: sumOf(sum) }))
  if (groups.length <= MAX_GROUPS)
    expect(sums.sort()).toEqual(expected.map((group) => JSON.stringify(group)).sort())
  expect(summary.groups?.total).toBe(groups.length)
}

/** The mean and the quantiles of a column of numbers, as far as doubles give them. */
function expectFigures(
  rows: string[][],
  index: number,
  mean: unknown,
  quantiles: Record<string, unknown>,
) {
  const texts = rows.map((row) => row[index] as string).filter((text) => text !== '')
  const numbers = texts.map(Number).sort((a, b) => a - b)
  const parts = texts.map((text) => text.replace('-', '').split('.'))
  const digits = [0, 1].reduce(
    (sum, part) => sum + Math.max(...parts.map((each) => each[part]?.length ?? 0)),
    0,
  )
  // Others are not interpolated.
  if (digits > DOUBLE_DIGITS || texts.some((text) => /e/i.test(text))) return
  const most = Math.max(...numbers.map(Math.abs))
  const expectClose = (actual: unknown, expected: number) =>
    expect(Math.abs(Number(actual) - expected)).toBeLessThanOrEqual(most * TOLERANCE)
  expectClose(mean, numbers.reduce((sum, number) => sum + number, 0) / numbers.length)
  for (const [share, value] of Object.entries(quantiles)) {
    const rank = Number(share) * (numbers.length - 1)
    const [lower, upper] = [numbers[Math.floor(rank)] as number, numbers[Math.ceil(rank)] as number]
    expectClose(value, lower + (upper - lower) * (rank - Math.floor(rank)))
  }
}

const isNumber = (type: string) => type === 'integer' || type === 'number'

test(`${FILES} random files have the counts and values that an independent reader finds`, {
  timeout: 60_000 + FILES * MS_PER_FILE,
}, async () => {
  for (let seed = SEED; seed < SEED + FILES; seed++) {
    await check(seed).catch((error) => {
      throw new Error(
        `RANDOM_CSV_SEED=${seed}: ${JSON.stringify(randomCsv(seed).bytes.toString())}`,
        { cause: error },
      )
    })
  }
})

test(`${FILES} files of quotes and line ends have as many rows as an independent reader finds`, {
  timeout: 60_000 + FILES * MS_PER_FILE,
}, async () => {
  for (let seed = SEED; seed < SEED + FILES; seed++) {
    const bytes = randomSoup(seed)
    const records = tryRecordsOf(bytes)
    if (!records) continue
    const { rows, rejected } = (await scan(bytes)) ?? { rows: 0, rejected: records.length - 1 }
    expect(rows + rejected, `RANDOM_CSV_SEED=${seed}: ${JSON.stringify(bytes.toString())}`).toBe(
      records.length - 1,
    )
  }
})

/** Undefined where the independent reader finds a quote that is not closed. */
function tryRecordsOf(bytes: Buffer) {
  try {
    return recordsOf(bytes, ',')
  } catch {
    return undefined
  }
}

const scan = (bytes: Buffer) =>
  withFile(bytes, async (file, folder) => {
    const { rows, rejected } = await scanCsv({ file, folder, delimiter: ',' }, () => {})
    return { rows, rejected: rejected.rows }
  }).catch(unlessInvalid)

/** Undefined for a file without a row that can be read. */
function unlessInvalid(error: unknown): undefined {
  if (!(error instanceof InvalidCsvError)) throw error
  expect(error.message).toMatch(/^(None of the file's \d+ rows can be read|The file is empty)/)
}
