import { availableParallelism } from 'node:os'
import type { TaskContext } from '../../compute/implement.ts'
import { summariseColumn } from './columns.ts'
import { SUMMARY_VERSION, type Summary, type SummaryInput, type SummaryOutcome } from './contract.ts'
import { Duck, DuckError } from './duck.ts'
import { findGroupColumns, summariseGroups } from './groups.ts'
import { scanCsv } from './scan.ts'
import { Unreadable } from './source.ts'
import { isDiskFull } from './storage.ts'
import { columnsOf, createTable, KEY } from './table.ts'

const MAX_THREADS = 4
/** With less for each of them, DuckDB's threads are in each other's way. */
const MEMORY_MB_PER_THREAD = 64
/** How much of the work is done when the file was scanned, and when DuckDB has read it; the rest is for each column alike. */
const SCANNED = 0.3
const READ = 0.6

/** Summarises a CSV of any size in the memory that it is given. */
export async function summarise(input: SummaryInput, context: TaskContext): Promise<SummaryOutcome> {
  const threads = Math.max(1, Math.min(MAX_THREADS, availableParallelism(), Math.floor(input.memoryMb / MEMORY_MB_PER_THREAD)))
  using duck = await Duck.open({ ...input, threads })
  try {
    return { ok: true, summary: await summariseIn(duck, input, (fraction) => context.progress(fraction)) }
  } catch (error) {
    return { ok: false, reason: explain(error) }
  }
}

/** The same in a database that is open, and has no tables. */
export async function summariseIn(
  duck: Duck,
  input: Omit<SummaryInput, 'memoryMb'>,
  progress: TaskContext['progress'],
): Promise<Summary> {
  const between = (from: number, to: number) => (fraction: number) => progress(from + (to - from) * fraction)
  const csv = await scanCsv(input, between(0, SCANNED))
  const columns = columnsOf(csv.columns)
  const grouped = findGroupColumns(columns, input)
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
  if (error instanceof DuckError && /^Out of Memory/.test(error.message) && !isDiskFull(error.message))
    return 'The file needs more memory than a report may take'
  throw error
}
