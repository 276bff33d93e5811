import { mkdir, mkdtemp, open, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { JobError } from '@offloop/jobs/errors'
import type { JobContext } from '@offloop/jobs/job'
import type { Pool } from '@offloop/workpool/pool'
import type { Database } from '../../db/database.ts'
import { AppError } from '../../errors.ts'
import { isSmall, type Summary, summariseCsv } from './contract.ts'
import * as queries from './queries.ts'
import { isDiskFull, type Storage } from './storage.ts'

export interface BuildDeps {
  database: Database
  compute: Pool
  storage: Storage
  /** Where reports put what does not fit into memory. */
  spillDirectory: string
  memoryMb: number
}

/**
 * Summarises a report's upload, unless one of the same bytes, columns and delimiter was summarised
 * before.
 */
export async function build(
  deps: BuildDeps,
  { id, signal, progress, requestId }: JobContext,
): Promise<Summary> {
  const db = deps.database.withSignal(signal)
  const row = await queries.findRow(db, id)
  if (!row?.upload) throw new AppError('not_found', 'The upload is gone', { retryable: false })
  const earlier = await queries.findResult(db, row)
  if (earlier) return earlier

  const file = await deps.storage.locate(row.upload)
  // A report that is cancelled loses its upload. Whoever closes a removed file last waits until its
  // blocks are free, for seconds where it is large: not the task's process, which would not end
  // before, but a thread of libuv's.
  await using _held = await open(file)
  const { groupBy, value, delimiter, bytes } = row
  const input = { file, memoryMb: deps.memoryMb, groupBy, value, delimiter }
  // `await` here: otherwise the file is closed before the task has finished.
  const outcome = await inFolder(deps.spillDirectory, id, (folder) =>
    deps.compute.run(
      summariseCsv,
      { ...input, folder },
      {
        // Whatever DuckDB does, it can be killed at any moment, and nothing but the report fails
        // with it.
        isolation: 'process',
        graceMs: 0,
        // One process is left to the small ones.
        priority: isSmall(Number(bytes)) ? 'interactive' : 'batch',
        signal,
        requestId: requestId ?? undefined,
        onProgress: progress,
      },
    ),
  ).catch(rethrow)
  if (!outcome.ok) throw new AppError('invalid', outcome.reason, { retryable: false })
  return outcome.summary
}

/** A report that took too long once would do so again; a disk that is full may not be later. */
function rethrow(error: unknown): never {
  if (isDiskFull(String(error)))
    throw new AppError('storage_full', 'There is no room on the disk for this report', {
      cause: error,
    })
  if (!(error instanceof JobError && error.code === 'deadline_exceeded')) throw error
  throw new AppError('deadline_exceeded', 'The file takes too long to summarise', {
    cause: error,
    retryable: false,
  })
}

/**
 * Runs a task in a folder of its own, which is gone afterwards whatever happens to the task's
 * process: that is why it is not the task's business.
 */
async function inFolder<T>(
  directory: string,
  id: string,
  run: (folder: string) => Promise<T>,
): Promise<T> {
  await removeFolders(directory, id)
  await mkdir(directory, { recursive: true })
  const folder = await mkdtemp(join(directory, `${id}.`))
  try {
    return await run(folder)
  } finally {
    await removeFolder(folder)
  }
}

/** What earlier attempts left whose processes were killed. */
async function removeFolders(directory: string, id: string): Promise<void> {
  const names = await readdir(directory).catch(() => [])
  for (const name of names) if (idOf(name) === id) await removeFolder(join(directory, name))
}

/** Tried again where a task whose process has not ended yet puts one more file into it. */
export const removeFolder = (folder: string) =>
  rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 })

/** The id of the report that has this folder. */
export const idOf = (folder: string) => folder.split('.')[0] ?? ''
