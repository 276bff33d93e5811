import { mkdir, mkdtemp, open, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { JobError } from '@offloop/jobs/errors'
import { FINISHED, type JobContext } from '@offloop/jobs/job'
import type { Pool } from '@offloop/workpool/pool'
import { type NotNull, sql } from 'kysely'
import type { Database, Db } from '../../db/database.ts'
import { inPieces } from '../../db/prepared.ts'
import { AppError } from '../../errors.ts'
import { currentTrace } from '../../http/context.ts'
import {
  isSmall,
  SUMMARY_VERSION,
  type Summary,
  type SummaryOptions,
  summariseCsv,
} from './contract.ts'
import { findReport, forgetUploads, fromReports } from './reports.ts'
import { isDiskFull, listOldNames, type Storage, uploadGone } from './storage.ts'

const HOUR_MS = 3_600_000
const SWEEP_BATCH = 500

interface JobDeps {
  database: Pick<Database, 'withSignal'>
  compute: Pool
  storage: Storage
  spillDirectory: string
  memoryMb: number
}

/** Reuses its owner's result for the same bytes, columns and delimiter. */
export async function summariseUpload(
  { database, compute, storage, spillDirectory, memoryMb }: JobDeps,
  { id, signal, progress, requestId, subject }: JobContext,
): Promise<Summary> {
  const db = database.withSignal(signal)
  const report = await findReport(db, id)
  const upload = report?.upload
  if (!upload) throw uploadGone()
  const earlier = await findResult(db, report)
  if (earlier) return earlier

  const { groupBy, value, delimiter } = report
  const outcome = await withFolder(spillDirectory, id, async (folder) => {
    const file = await storage.locate(upload, folder, signal)
    // The last close of a removed file may take seconds, which the child process must not.
    await using _open = await open(file)
    return await compute.run(
      summariseCsv,
      { file, folder, memoryMb, groupBy, value, delimiter },
      {
        isolation: 'process',
        graceMs: 0,
        priority: isSmall(Number(report.bytes)) ? 'interactive' : 'batch',
        signal,
        requestId: requestId ?? undefined,
        trace: currentTrace()?.traceparent,
        key: subject ?? undefined,
        onProgress: progress,
      },
    )
  }).catch(rethrow)
  if (!outcome.ok) throw new AppError('invalid', outcome.reason, { retryable: false })
  return outcome.summary
}

/** Never another owner's: its speed would tell that somebody else has the file. */
async function findResult(
  db: Db,
  {
    sha256,
    owner,
    groupBy,
    value,
    delimiter,
  }: SummaryOptions & { sha256: string; owner: string | null },
): Promise<Summary | undefined> {
  const row = await fromReports(db)
    .select('job.result')
    .where('report.sha256', '=', sha256)
    .where(sql<boolean>`report.owner <=> ${owner}`)
    .where(isSameName('report.group_by', groupBy))
    .where(isSameName('report.value_column', value))
    .where(sql<boolean>`report.delimiter <=> ${delimiter}`)
    .where('job.state', '=', 'succeeded')
    .orderBy('report.id', 'desc')
    .limit(1)
    .executeTakeFirst()
  const summary = row?.result ? (JSON.parse(row.result) as Summary) : undefined
  return summary?.version === SUMMARY_VERSION ? summary : undefined
}

/** Compares bytes, because "region " equals "region" in the collation. */
const isSameName = (column: 'report.group_by' | 'report.value_column', name: string | null) =>
  sql<boolean>`cast(${sql.ref(column)} as binary) <=> cast(${name} as binary)`

function rethrow(cause: unknown): never {
  if (isDiskFull(String(cause)) || (cause instanceof AppError && cause.code === 'storage_full'))
    throw new AppError('storage_full', 'There is no room on the disk for this report', { cause })
  if (!(cause instanceof JobError && cause.code === 'deadline_exceeded')) throw cause
  const detail = 'The file takes too long to summarise'
  throw new AppError('deadline_exceeded', detail, { cause, retryable: false })
}

async function withFolder<T>(
  directory: string,
  id: string,
  run: (folder: string) => Promise<T>,
): Promise<T> {
  await mkdir(directory, { recursive: true })
  // Killed processes leave their folders.
  for (const name of await readdir(directory))
    if (toId(name) === id) await removeFolder(join(directory, name))
  const folder = await mkdtemp(join(directory, `${id}.`))
  try {
    return await run(folder)
  } finally {
    await removeFolder(folder)
  }
}

/** A task that is ending may still add a file. */
const removeFolder = (folder: string) =>
  rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 })

const toId = (folder: string) => folder.split('.')[0] ?? ''

/**
 * Removes old uploads (docs/reports.md), those without a report, and folders of reports that are
 * not running.
 */
export async function sweep(
  { database, storage, spillDirectory }: Omit<JobDeps, 'compute' | 'memoryMb'>,
  signal: AbortSignal,
): Promise<void> {
  const db = database.withSignal(signal)
  for (let old = await listOldUploads(db); old.length > 0; old = await listOldUploads(db)) {
    for (const { upload } of old) await storage.remove(upload, signal)
    const ids = old.map(({ id }) => id)
    await forgetUploads(db, ids)
  }
  const uploads = await storage.listUntouched(HOUR_MS, signal)
  const known = await findKnownUploads(db, uploads)
  for (const upload of uploads) if (!known.has(upload)) await storage.remove(upload, signal)
  const folders = await listOldNames(spillDirectory, HOUR_MS)
  const running = await findRunning(db, folders.map(toId))
  for (const folder of folders)
    if (!running.has(toId(folder))) await removeFolder(join(spillDirectory, folder))
}

/** Uploads of reports created a day or cancelled an hour ago. */
const listOldUploads = (db: Db) =>
  fromReports(db)
    .select(['report.id', 'report.upload'])
    .where('report.upload', 'is not', null)
    .$narrowType<{ upload: NotNull }>()
    .where('job.state', 'in', FINISHED)
    .where((eb) =>
      eb.or([
        eb('report.created_at', '<', sql<Date>`now(3) - interval 1 day`),
        eb.and([
          eb('job.state', '=', 'cancelled'),
          eb('job.finished_at', '<', sql<Date>`now(3) - interval 1 hour`),
        ]),
      ]),
    )
    .limit(SWEEP_BATCH)
    .execute()

async function findKnownUploads(db: Db, uploads: readonly string[]): Promise<Set<unknown>> {
  const rows = await inPieces(uploads, (piece) =>
    db.selectFrom('report').select('upload').where('upload', 'in', piece).execute(),
  )
  return new Set(rows.map(({ upload }) => upload))
}

async function findRunning(db: Db, ids: readonly string[]): Promise<Set<string>> {
  const running = db.selectFrom('job').select('id').where('state', '=', 'running')
  const rows = await inPieces(ids, (piece) => running.where('id', 'in', piece).execute())
  return new Set(rows.map(({ id }) => id))
}
