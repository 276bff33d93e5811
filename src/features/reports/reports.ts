import { createHash, type Hash, randomUUID } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import { JobError } from '@offloop/jobs/errors'
import type { JobChange } from '@offloop/jobs/job'
import type { Jobs } from '@offloop/jobs/jobs'
import type { GeneratedAlways, Transaction } from 'kysely'
import type { Db } from '../../db/database.ts'
import { isDuplicateKey } from '../../db/errors.ts'
import { inPieces } from '../../db/prepared.ts'
import type { Tables } from '../../db/tables.ts'
import { transaction } from '../../db/transaction.ts'
import { AppError } from '../../errors.ts'
import { type PageRequest, Pager } from '../../http/pagination.ts'
import { buildReport, isSmall, type Summary, type SummaryOptions } from './contract.ts'
import type { Storage } from './storage.ts'

declare module '../../db/tables.ts' {
  interface Tables {
    report: {
      id: string
      upload: string | null
      bytes: number
      sha256: string
      group_by: string | null
      value_column: string | null
      delimiter: string | null
      idempotency_key: string | null
      created_at: GeneratedAlways<Date>
    }
  }
}

const pager = new Pager('id', /[0-9a-f-]{36}/)

interface ReportDeps {
  jobs: Jobs
  storage: Storage
}

interface NewReport extends SummaryOptions {
  body: AsyncIterable<Uint8Array>
  expectedBytes: number | undefined
  idempotencyKey: string | null
  requestId: string
}

/**
 * Stores an upload and enqueues its report; a repeat under the same Idempotency-Key gets the first.
 *
 * @param open is called again after the upload, which may take long.
 * @throws AppError `conflict` if the key was used for something else; `storage_full`; what the body
 * throws.
 */
export async function createReport(
  deps: ReportDeps,
  open: () => Db,
  request: NewReport,
): Promise<FoundReport> {
  const { body, expectedBytes, idempotencyKey, groupBy, value, delimiter } = request
  const hash = createHash('sha256')
  if (idempotencyKey !== null && (await findByKey(open(), idempotencyKey))) {
    // Some clients read no response before they have sent everything.
    for await (const chunk of body) hash.update(chunk)
    return repeatReport(open(), request, hash.digest('hex'))
  }
  const upload = randomUUID()
  const bytes = await deps.storage.save(upload, hashing(body, hash), expectedBytes)
  const stored = { upload, bytes, sha256: hash.digest('hex'), groupBy, value, delimiter }
  return commitReport(deps, open, stored, request)
}

async function* hashing(body: AsyncIterable<Uint8Array>, hash: Hash) {
  for await (const chunk of body) {
    hash.update(chunk)
    yield chunk
  }
}

/** A complete upload with the options of its report. */
interface Upload extends SummaryOptions {
  upload: string
  bytes: number
  sha256: string
}

/**
 * Commits the report with its job. The response is read before, so that nothing can fail after the
 * commit.
 */
async function commitReport(
  { jobs, storage }: ReportDeps,
  open: () => Db,
  upload: Upload,
  request: NewReport,
): Promise<FoundReport> {
  const { idempotencyKey, requestId } = request
  let mayBeCommitted = false
  try {
    return await transaction(open(), async (trx) => {
      mayBeCommitted = false
      const priority = isSmall(upload.bytes) ? 0 : 1
      const { id } = await jobs.enqueue(trx, buildReport, null, { requestId, priority })
      await insert(trx, id, upload, idempotencyKey)
      const report = await getReport(trx, id)
      mayBeCommitted = true
      return report
    })
  } catch (error) {
    // A commit whose reply was lost may have succeeded, so the upload stays. If it did not, the
    // sweep removes it.
    if (!mayBeCommitted) await storage.remove(upload.upload)
    if (!isDuplicateKey(error, 'report_idempotency_key')) throw error
    return repeatReport(open(), request, upload.sha256)
  }
}

async function repeatReport(db: Db, request: NewReport, sha256: string): Promise<FoundReport> {
  const { id, ...rest } =
    (await findByKey(db, request.idempotencyKey ?? '')) ?? missing('under this key any more')
  const { groupBy, value, delimiter } = request
  if (isDeepStrictEqual(rest, { sha256, groupBy, value, delimiter })) return getReport(db, id)
  throw new AppError(
    'conflict',
    'This Idempotency-Key was used for another file, or other columns or delimiter',
  )
}

type FoundReport = Awaited<ReturnType<typeof getReport>>

/** @throws AppError `not_found`. */
export async function getReport(db: Db, id: string) {
  const { result, upload, ...row } = (await findReport(db, id)) ?? missing(id)
  const hasResult = row.state === 'succeeded' && result !== null
  return { ...toBrief(row), ...(hasResult && { result: JSON.parse(result) as Summary }) }
}

/** One page, newest first. @throws AppError `invalid` for a cursor of another list. */
export const listReports = (db: Db, page: PageRequest) =>
  pager.read(page, async (before, limit) => (await selectBefore(db, before, limit)).map(toBrief))

/** Cancels an unfinished report and removes any upload. @throws AppError `not_found`. */
export async function cancelReport({ jobs, storage }: ReportDeps, db: Db, id: string) {
  const { upload } = (await findReport(db, id)) ?? missing(id)
  await jobs.cancel(db, id).catch(unlessFinished)
  if (upload !== null) {
    await forgetUploads(db, [id])
    await storage.remove(upload)
  }
  return getReport(db, id)
}

function unlessFinished(error: unknown) {
  if (!(error instanceof JobError && error.code === 'conflict')) throw error
}

const toBrief = (row: Row) => ({
  ...row,
  state: toState(row.state),
  // MySQL's BIGINT comes as text.
  bytes: Number(row.bytes),
})

export const toState = (state: JobChange['state']) => (state === 'scheduled' ? 'queued' : state)

function missing(id: string): never {
  throw new AppError('not_found', `There is no report ${id}`)
}

const NUMBER = /^-?\d+(\.\d+)?(e[+-]?\d+)?$/i

/** Formats groups by RFC 4180. @throws AppError `conflict` if there is no result or no groups. */
export function toGroupsCsv({ state, result, groupBy, value }: FoundReport): string {
  if (!result) throw new AppError('conflict', `The report has no result: it is ${state}`)
  if (!result.groups)
    throw new AppError('conflict', 'The report has no groups: it was made without groupBy')
  const header = [groupBy, 'count', `sum of ${value}`, `mean of ${value}`]
  const rows = result.groups.first.map(({ key, count, sum, mean }) => [key, count, sum, mean])
  const width = value === null ? 2 : 4
  return [header, ...rows]
    .map((cells) => `${cells.slice(0, width).map(toCell).join(',')}\r\n`)
    .join('')
}

function toCell(cell: string | number | null): string {
  // The apostrophe keeps spreadsheets from running a text as a formula.
  const isFormula = typeof cell === 'string' && /^[=+\-@\t\r]/.test(cell) && !NUMBER.test(cell)
  const text = `${isFormula ? "'" : ''}${cell ?? ''}`
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}

const COLUMNS = [
  'report.id',
  'job.state',
  'job.progress',
  'job.note',
  'job.attempt',
  'job.error',
  'report.bytes',
  'report.sha256',
  'report.group_by as groupBy',
  'report.value_column as value',
  'report.delimiter',
  'job.created_at as createdAt',
  'job.started_at as startedAt',
  'job.finished_at as finishedAt',
] as const

export const fromReports = (db: Db) =>
  db.selectFrom('report').innerJoin('job', 'job.id', 'report.id')

function selectBefore(db: Db, before: string | undefined, limit: number) {
  const query = fromReports(db).select(COLUMNS).orderBy('report.id', 'desc').limit(limit)
  return (before === undefined ? query : query.where('report.id', '<', before)).execute()
}

type Row = Awaited<ReturnType<typeof selectBefore>>[number]

export const findReport = (db: Db, id: string) =>
  fromReports(db)
    .select([...COLUMNS, 'job.result', 'report.upload'])
    .where('report.id', '=', id)
    .executeTakeFirst()

const findByKey = (db: Db, key: string) =>
  db
    .selectFrom('report')
    .select(['id', 'sha256', 'group_by as groupBy', 'value_column as value', 'delimiter'])
    .where('idempotency_key', '=', key)
    .executeTakeFirst()

/** Violates the key `report_idempotency_key` if another report has `idempotency_key`. */
const insert = (
  trx: Transaction<Tables>,
  id: string,
  { groupBy, value, ...upload }: Upload,
  idempotency_key: string | null,
) =>
  trx
    .insertInto('report')
    .values({ id, ...upload, group_by: groupBy, value_column: value, idempotency_key })
    .execute()

export async function forgetUploads(db: Db, ids: readonly string[]): Promise<void> {
  await inPieces(ids, (piece) =>
    db.updateTable('report').set({ upload: null }).where('id', 'in', piece).execute(),
  )
}
