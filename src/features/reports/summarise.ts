import { availableParallelism } from 'node:os'
import type { TaskContext } from '@offloop/workpool/task'
import { type Column, summariseColumn } from './columns.ts'
import {
  type ColumnSummary,
  type Grouping,
  SUMMARY_VERSION,
  type Summary,
  type SummaryInput,
  type SummaryOutcome,
} from './contract.ts'
import { Duck, DuckError, type DuckOptions } from './duck.ts'
import { findGroupColumns, summariseGroups } from './groups.ts'
import { type CleanFile, type ScannedCsv, scanCsv, VECTOR_ROWS } from './scan.ts'
import { Unreadable } from './source.ts'
import { isDiskFull } from './storage.ts'
import { columnsOf, createTable, dropTable, KEY } from './table.ts'

const MAX_THREADS = 4
/** With less for each of them, DuckDB's threads are in each other's way. */
const MEMORY_MB_PER_THREAD = 64
/**
 * DuckDB takes about twice its limit, which does not count all that it allocates. More of it makes
 * nothing faster.
 */
const LIMIT_SHARE = 0.5
/** Of long rows it has several copies at a time that are in no limit. */
const LIMIT_SHARE_OF_LONG_ROWS = 0.4
/** DuckDB's own 122 880 take some 100 MiB more, and no less time. */
const ROW_GROUP_ROWS = 20_480
const BLOCK_BYTES = 262_144
/** So that 200 columns of few rows take 3 MiB, not 50. */
const SMALL_BLOCK_BYTES = 16_384
/**
 * A row group of a table has no more than that, so that a table of many or long columns is made of
 * a few columns at a time.
 */
const MAX_ROW_GROUP_BYTES = 16 * 1024 ** 2
/** How much of the work is done when the file was scanned. */
const SCANNED = 0.3
/**
 * How much of the work on a slice is done when DuckDB has read it; the rest is for each of its
 * columns alike.
 */
const READ = 0.43

/** Summarises a CSV of any size in the memory that it is given. */
export async function summarise(
  input: SummaryInput,
  context: TaskContext,
): Promise<SummaryOutcome> {
  const progress = (fraction: number) => context.progress(fraction)
  try {
    const csv = await scanCsv(input, (fraction) => progress(fraction * SCANNED))
    using duck = await Duck.open({ folder: input.folder, ...boundsFor(csv.clean, input.memoryMb) })
    return { ok: true, summary: await summariseScanned(duck, csv, input, progress) }
  } catch (error) {
    return { ok: false, reason: explain(error) }
  }
}

/**
 * DuckDB's limit does not count the rows that it is just reading and writing: where those are long,
 * it works on few.
 */
function boundsFor(clean: CleanFile, memoryMb: number): Omit<DuckOptions, 'folder'> {
  const rowGroupRows = rowGroupRowsFor(clean)
  if (rowGroupRows === VECTOR_ROWS) {
    const limitMb = Math.floor(memoryMb * LIMIT_SHARE_OF_LONG_ROWS)
    return {
      memoryMb: limitMb,
      threads: 1,
      rowGroupRows,
      blockBytes: SMALL_BLOCK_BYTES,
      freedMb: 1,
    }
  }
  const isSliced = countSlices(clean) > 1
  const limitMb = Math.floor(memoryMb * LIMIT_SHARE)
  const mostThreads = Math.floor((isSliced ? limitMb : memoryMb) / MEMORY_MB_PER_THREAD)
  const threads = Math.max(1, Math.min(MAX_THREADS, availableParallelism(), mostThreads))
  return {
    memoryMb: limitMb,
    threads,
    rowGroupRows,
    blockBytes: BLOCK_BYTES,
    freedMb: isSliced ? 1 : 128,
  }
}

const rowGroupRowsFor = ({ maxVectorBytes }: CleanFile) =>
  maxVectorBytes > MAX_ROW_GROUP_BYTES ? VECTOR_ROWS : ROW_GROUP_ROWS

/** Summarises what was scanned in a database that is open, and has no tables. */
export async function summariseScanned(
  duck: Duck,
  csv: ScannedCsv,
  grouping: Grouping,
  progress: TaskContext['progress'],
): Promise<Summary> {
  const columns = columnsOf(csv.columns)
  const grouped = findGroupColumns(columns, grouping)
  const slices = sliceColumns(columns, csv.clean)
  const summaries: ColumnSummary[] = []
  let groups: Summary['groups'] = null
  for (const [index, slice] of slices.entries()) {
    const report = (fraction: number) =>
      progress(SCANNED + ((1 - SCANNED) * (index + fraction)) / slices.length)
    // The groups are made where the column to sum up is.
    const isGrouped =
      grouped !== undefined && slice.includes(grouped.value ?? (columns[0] as Column))
    await createTable(
      duck,
      csv,
      { columns, slice, key: isGrouped ? grouped.groupBy : undefined },
      (read) => report(read * READ),
    )
    for (const [done, column] of slice.entries()) {
      report(READ + ((1 - READ) * done) / (slice.length + 1))
      summaries.push(await summariseColumn(duck, column, csv.rows))
    }
    if (isGrouped) groups = await summariseGroups(duck, grouped, KEY)
    await dropTable(duck)
  }
  const rejected = csv.rejected.summary()
  return {
    version: SUMMARY_VERSION,
    delimiter: csv.delimiter,
    rows: csv.rows,
    columns: summaries,
    rejected,
    groups,
  }
}

/**
 * Divides the columns into slices that are read one after the other. DuckDB has each row group in
 * several copies, not all of which its limit counts. The columns that it is not asked for it skips,
 * in a fraction of the time that reading them takes.
 */
function sliceColumns(columns: readonly Column[], clean: CleanFile): Column[][] {
  const width = Math.ceil(columns.length / countSlices(clean))
  return Array.from({ length: Math.ceil(columns.length / width) }, (_, index) =>
    columns.slice(index * width, (index + 1) * width),
  )
}

function countSlices(clean: CleanFile): number {
  const rowGroupBytes = (clean.maxVectorBytes * rowGroupRowsFor(clean)) / VECTOR_ROWS
  return Math.max(1, Math.ceil(rowGroupBytes / MAX_ROW_GROUP_BYTES))
}

/** In words for whoever sent the file. @throws what is no fault of the file's. */
function explain(error: unknown): string {
  if (error instanceof Unreadable) return error.message
  if (
    error instanceof DuckError &&
    /^Out of Memory|failed to (pin|allocate) block/.test(error.message) &&
    !isDiskFull(error.message)
  )
    return 'The file needs more memory than a report may take: send fewer of its columns, or fewer rows'
  throw error
}
