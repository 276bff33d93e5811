import { availableParallelism } from 'node:os'
import type { TaskContext } from '../../compute/implement.ts'
import { columnsOf, summariseColumn } from './columns.ts'
import { type Grouping, SUMMARY_VERSION, type Summary, type SummaryInput, type SummaryOutcome } from './contract.ts'
import { Duck, DuckError, type Queries } from './duck.ts'
import { assertGroupable, summariseGroups } from './groups.ts'
import { summariseRejected } from './rejected.ts'
import { csvSource, Unreadable } from './source.ts'

const MAX_COLUMNS = 200
const MAX_THREADS = 4
/** With less for each of them, DuckDB's threads are in each other's way. */
const MEMORY_MB_PER_THREAD = 64
/** How much of the work it is to read the file; the rest is about the same for each column. */
const READING_SHARE = 0.5

/** Summarises a CSV of any size in the memory that it is given. */
export async function summarise(input: SummaryInput, context: TaskContext): Promise<SummaryOutcome> {
  try {
    const source = await csvSource(input.file, context)
    const threads = Math.max(1, Math.min(MAX_THREADS, availableParallelism(), Math.floor(input.memoryMb / MEMORY_MB_PER_THREAD)))
    const duck = await Duck.open({ ...input, threads }, context)
    try {
      return { ok: true, summary: await summariseSource(duck, source, input, (fraction) => context.progress(fraction)) }
    } finally {
      duck.close()
    }
  } catch (error) {
    context.throwIfCancelled()
    return { ok: false, reason: explain(error) }
  } finally {
    Atomics.store(input.closed, 0, 1)
    Atomics.notify(input.closed, 0)
  }
}

/** Reading costs the most by far, so the file is read once, into a table on disk that is a fifth of its size. */
export async function summariseSource(
  duck: Queries,
  source: string,
  input: Grouping,
  progress: TaskContext['progress'],
): Promise<Summary> {
  const columns = await columnsOf(duck, source)
  if (columns.length > MAX_COLUMNS) throw new Unreadable(`The file has ${columns.length} columns, more than ${MAX_COLUMNS}`)
  assertGroupable(columns, input)
  await duck.rows(`create table data as select * from ${source}`, (fraction) => progress(fraction * READING_SHARE))
  const rejected = await summariseRejected(duck)
  const rows = Number((await duck.row('select count(*)::double as rows from data'))['rows'])
  if (rows === 0) throw new Unreadable(withoutRows(rejected.rows))

  const summaries = []
  const steps = columns.length + 1
  for (const column of columns) {
    progress(READING_SHARE + (1 - READING_SHARE) * (summaries.length / steps))
    summaries.push(await summariseColumn(duck, column, rows))
  }
  const groups = await summariseGroups(duck, columns, input)
  return { version: SUMMARY_VERSION, rows, columns: summaries, rejected, groups }
}

const withoutRows = (rejected: number) =>
  rejected === 0 ? 'The file is empty but for its header' : `The file is not a CSV: none of its ${rejected} rows can be read`

/** In words for whoever sent the file. @throws what is no fault of the file's. */
function explain(error: unknown): string {
  if (error instanceof Unreadable) return error.message
  if (!(error instanceof DuckError)) throw error
  if (/^IO Error/.test(error.message) && /space|disk/i.test(error.message)) throw error
  if (/gzip|zlib|inflate|decompress/i.test(error.message)) return 'The file is gzip but broken: it cannot be unzipped'
  if (/Out of Memory/i.test(error.message)) return 'The file needs more memory than a report may take'
  if (/CSV|sniff/i.test(error.message)) return 'The file is not a CSV, or not one whose columns can be told apart'
  throw error
}
