import { availableParallelism } from 'node:os'
import type { TaskContext } from '../../compute/implement.ts'
import { summariseColumn } from './columns.ts'
import { type Grouping, SUMMARY_VERSION, type Summary, type SummaryInput, type SummaryOutcome } from './contract.ts'
import { Duck, DuckError, type DuckOptions } from './duck.ts'
import { findGroupColumns, summariseGroups } from './groups.ts'
import { type CleanFile, type ScannedCsv, scanCsv, VECTOR_ROWS } from './scan.ts'
import { Unreadable } from './source.ts'
import { isDiskFull } from './storage.ts'
import { columnsOf, createTable, KEY } from './table.ts'

const MAX_THREADS = 4
/** With less for each of them, DuckDB's threads are in each other's way. */
const MEMORY_MB_PER_THREAD = 64
/** DuckDB takes about a third more than its limit, which does not count all that it allocates. */
const LIMIT_SHARE = 0.75
/** Of long rows it has some 100 MiB at a time in several copies, which are in no limit. */
const LIMIT_SHARE_OF_LONG_ROWS = 0.6
/** DuckDB's own 122 880 take some 100 MiB more, and no less time. */
const ROW_GROUP_ROWS = 20_480
const BLOCK_BYTES = 262_144
/** So that 200 columns of few rows take 3 MiB, not 50. */
const SMALL_BLOCK_BYTES = 16_384
/** Where as many rows as DuckDB works on at a time have more than that, they are long. */
const MAX_VECTOR_BYTES = 16 * 1024 ** 2
/** How much of the work is done when the file was scanned, and when DuckDB has read it; the rest is for each column alike. */
const SCANNED = 0.3
const READ = 0.6

/** Summarises a CSV of any size in the memory that it is given. */
export async function summarise(input: SummaryInput, context: TaskContext): Promise<SummaryOutcome> {
  const progress = (fraction: number) => context.progress(fraction)
  try {
    const csv = await scanCsv(input, (fraction) => progress(fraction * SCANNED))
    using duck = await Duck.open({ folder: input.folder, ...boundsFor(csv.clean, input.memoryMb) })
    return { ok: true, summary: await summariseScanned(duck, csv, input, progress) }
  } catch (error) {
    return { ok: false, reason: explain(error) }
  }
}

/** DuckDB's limit does not count the rows that it is just reading and writing: where those are long, it works on few. */
function boundsFor({ maxVectorBytes }: CleanFile, memoryMb: number): Omit<DuckOptions, 'folder'> {
  if (maxVectorBytes > MAX_VECTOR_BYTES) {
    const limitMb = Math.floor(memoryMb * LIMIT_SHARE_OF_LONG_ROWS)
    return { memoryMb: limitMb, threads: 1, rowGroupRows: VECTOR_ROWS, blockBytes: SMALL_BLOCK_BYTES }
  }
  const threads = Math.max(1, Math.min(MAX_THREADS, availableParallelism(), Math.floor(memoryMb / MEMORY_MB_PER_THREAD)))
  const limitMb = Math.floor(memoryMb * LIMIT_SHARE)
  return { memoryMb: limitMb, threads, rowGroupRows: ROW_GROUP_ROWS, blockBytes: BLOCK_BYTES }
}

/** Summarises what was scanned in a database that is open, and has no tables. */
export async function summariseScanned(
  duck: Duck,
  csv: ScannedCsv,
  grouping: Grouping,
  progress: TaskContext['progress'],
): Promise<Summary> {
  const between = (from: number, to: number) => (fraction: number) => progress(from + (to - from) * fraction)
  const columns = columnsOf(csv.columns)
  const grouped = findGroupColumns(columns, grouping)
  await createTable(duck, csv, columns, grouped?.groupBy, between(SCANNED, READ))
  const summaries = []
  for (const [index, column] of columns.entries()) {
    between(READ, 1)(index / (columns.length + 1))
    summaries.push(await summariseColumn(duck, column, csv.rows))
  }
  return {
    version: SUMMARY_VERSION,
    delimiter: csv.delimiter,
    rows: csv.rows,
    columns: summaries,
    rejected: csv.rejected.summary(),
    groups: grouped ? await summariseGroups(duck, grouped, KEY) : null,
  }
}

/** In words for whoever sent the file. @throws what is no fault of the file's. */
function explain(error: unknown): string {
  if (error instanceof Unreadable) return error.message
  if (
    error instanceof DuckError &&
    /^Out of Memory|failed to (pin|allocate) block/.test(error.message) &&
    !isDiskFull(error.message)
  )
    return 'The file needs more memory than a report may take'
  throw error
}
