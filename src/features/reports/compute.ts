import { availableParallelism } from 'node:os'
import { implement } from '@offloop/workpool/task'
import type { Column } from './column-types.ts'
import { findGroupColumns, isApproximate, summariseColumn, summariseGroups } from './columns.ts'
import {
  type ColumnSummary,
  SUMMARY_VERSION,
  type Summary,
  type SummaryOutcome,
  summariseCsv,
} from './contract.ts'
import { InvalidCsvError } from './csv.ts'
import { createTable, Duck, DuckError } from './duck.ts'
import { type ScannedCsv, scanCsv, VECTOR_ROWS } from './scan.ts'
import { isDiskFull } from './storage.ts'

const MAX_THREADS = 4
/** With less, DuckDB's threads slow each other down. */
const MEMORY_MB_PER_THREAD = 64
/** DuckDB takes about twice its limit, more for long rows. */
const LIMIT_SHARE = 0.5
const LIMIT_SHARE_OF_LONG_ROWS = 0.4
/** DuckDB's default takes about 100 MiB more and saves no time. */
const ROW_GROUP_ROWS = 20_480
const BLOCK_BYTES = 262_144
/** Makes 200 columns of few rows take 3 MiB, not 50. */
const SMALL_BLOCK_BYTES = 16_384
/** Larger row groups are read a few columns at a time. */
const MAX_ROW_GROUP_BYTES = 16 * 1024 ** 2
/** Shares of the progress. */
const SCANNED = 0.3
const READ = 0.43

implement(summariseCsv, async (input, context): Promise<SummaryOutcome> => {
  const progress = (fraction: number) => context.progress(fraction)
  try {
    const csv = await scanCsv(input, (fraction) => progress(fraction * SCANNED))
    using duck = await Duck.open(input.folder, toDuckOptions(csv, input.memoryMb))
    return { ok: true, summary: await summariseScanned(duck, csv, input, progress) }
  } catch (error) {
    return { ok: false, reason: explain(error) }
  }
})

/** DuckDB's limit excludes rows being read, so long rows get small row groups. */
function toDuckOptions(csv: ScannedCsv, memoryMb: number) {
  const rowGroupRows = toRowGroupRows(csv)
  if (rowGroupRows === VECTOR_ROWS) {
    const limitMb = Math.floor(memoryMb * LIMIT_SHARE_OF_LONG_ROWS)
    return { limitMb, threads: 1, rowGroupRows, blockBytes: SMALL_BLOCK_BYTES, freedMb: 1 }
  }
  const isSliced = countSlices(csv) > 1
  const limitMb = Math.floor(memoryMb * LIMIT_SHARE)
  const maxThreads = Math.floor((isSliced ? limitMb : memoryMb) / MEMORY_MB_PER_THREAD)
  const threads = Math.max(1, Math.min(MAX_THREADS, availableParallelism(), maxThreads))
  return { limitMb, threads, rowGroupRows, blockBytes: BLOCK_BYTES, freedMb: isSliced ? 1 : 128 }
}

const toRowGroupRows = ({ maxVectorBytes }: ScannedCsv) =>
  maxVectorBytes > MAX_ROW_GROUP_BYTES ? VECTOR_ROWS : ROW_GROUP_ROWS

function countSlices(csv: ScannedCsv): number {
  const rowGroupBytes = (csv.maxVectorBytes * toRowGroupRows(csv)) / VECTOR_ROWS
  return Math.max(1, Math.ceil(rowGroupBytes / MAX_ROW_GROUP_BYTES))
}

export async function summariseScanned(
  duck: Duck,
  csv: ScannedCsv,
  grouping: Parameters<typeof findGroupColumns>[1],
  progress: (fraction: number) => void,
): Promise<Summary> {
  const { columns, delimiter, rows, rejected } = csv
  const grouped = findGroupColumns(columns, grouping)
  const width = Math.ceil(columns.length / countSlices(csv))
  const summaries: ColumnSummary[] = []
  let groups: Summary['groups'] = null
  for (let start = 0; start < columns.length; start += width) {
    const slice = columns.slice(start, start + width)
    const report = (fraction: number) =>
      progress(SCANNED + ((1 - SCANNED) * (start + slice.length * fraction)) / columns.length)
    // Groups need the slice with the column to sum.
    const isGrouped = grouped && slice.includes(grouped.value ?? (columns[0] as Column))
    const key = isGrouped ? grouped.groupBy : undefined
    await createTable(duck, csv, { slice, key }, (read) => report(read * READ))
    for (const [done, column] of slice.entries()) {
      report(READ + ((1 - READ) * done) / (slice.length + 1))
      summaries.push(await summariseColumn(duck, column, rows))
    }
    if (isGrouped) groups = await summariseGroups(duck, grouped)
    await duck.rows('drop table data')
  }
  const approximate = isApproximate(rows)
  const figures = { rows, approximate, columns: summaries, rejected, groups }
  return { version: SUMMARY_VERSION, delimiter, ...figures }
}

/** Returns the reason for the file's owner. @throws all other errors. */
function explain(error: unknown): string {
  if (error instanceof InvalidCsvError) return error.message
  if (
    error instanceof DuckError &&
    /^Out of Memory|failed to (pin|allocate) block/.test(error.message) &&
    !isDiskFull(error.message)
  )
    return 'The file needs more memory than a report may take: send fewer columns or fewer rows'
  throw error
}
