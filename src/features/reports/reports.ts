import { createHash, type Hash, randomUUID } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import { JobError } from '@offloop/jobs/errors'
import { type JobChange, UNFINISHED } from '@offloop/jobs/job'
import type { Jobs } from '@offloop/jobs/jobs'
import { type GeneratedAlways, sql, type Transaction } from 'kysely'
import type { Db } from '../../db/database.ts'
import { isDuplicateKey } from '../../db/errors.ts'
import { inPieces } from '../../db/prepared.ts'
import type { Tables } from '../../db/tables.ts'
import { transaction } from '../../db/transaction.ts'
import { AppError } from '../../errors.ts'
import { type PageRequest, Pager } from '../../http/pagination.ts'
import type { Subject } from '../../roles.ts'
import { buildReport, isSmall, type Summary, type SummaryOptions } from './contract.ts'
import type { Quota, Storage } from './storage.ts'

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
      owner: string | null
      created_at: GeneratedAlways<Date>
    }
  }
}

const pager = new Pager('id', /[0-9a-f-]{36}/)

interface ReportDeps {
  jobs: Jobs
  storage: Storage
  quota: Quota
}

interface NewReport extends SummaryOptions {
  body: AsyncIterable<Uint8Array>
  expectedBytes: number | undefined
  maxBytes: number
  idempotencyKey: string | null
  requestId: string
  owner: Subject
  isLimited: boolean
}

/**
 * Stores an upload and enqueues its report; a repeat under the owner's
 * Idempotency-Key gets the first.
 *
 * @param open is called again after the upload.
 * @throws AppError `conflict` if the key was used for something else; `rate_limited` beyond the
 * owner's quota; `storage_full`; `unavailable`; what the body throws.
 */
export async function createReport(
  deps: ReportDeps,
  open: () => Db,
  request: NewReport,
): Promise<FoundReport> {
  const { body, expectedBytes, groupBy, value, delimiter } = request
  const hash = createHash('sha256')
  if (await findRepeated(open(), request)) {
    // Some clients read no response before they have sent everything.
    for await (const chunk of body) hash.update(chunk)
    return repeatReport(open(), request, hash.digest('hex'))
  }
  using _room = request.isLimited ? await reserveRoom(deps, open(), request) : undefined
  const upload = randomUUID()
  const bytes = await deps.storage.save(upload, hashing(body, hash), expectedBytes)
  const stored = { upload, bytes, sha256: hash.digest('hex'), groupBy, value, delimiter }
  return commitReport(deps, open, stored, request)
}

async function reserveRoom({ quota }: ReportDeps, db: Db, request: NewReport) {
  const { owner, expectedBytes = request.maxBytes } = request
  return quota.reserve(owner.id, await readStored(db, owner.id), expectedBytes)
}

async function* hashing(body: AsyncIterable<Uint8Array>, hash: Hash) {
  for await (const chunk of body) {
    hash.update(chunk)
    yield chunk
  }
}

interface Upload extends SummaryOptions {
  upload: string
  bytes: number
  sha256: string
}

/** Reads the response before the commit, so that nothing can fail after it. */
async function commitReport(
  { jobs, storage }: ReportDeps,
  open: () => Db,
  upload: Upload,
  request: NewReport,
): Promise<FoundReport> {
  const { idempotencyKey, requestId, owner } = request
  let mayBeCommitted = false
  try {
    return await transaction(open(), async (trx) => {
      mayBeCommitted = false
      const priority = isSmall(upload.bytes) ? 0 : 1
      const options = { requestId, subject: owner.id, priority }
      const { id } = await jobs.enqueue(trx, buildReport, null, options)
      await insert(trx, { id, owner: owner.id, idempotency_key: idempotencyKey }, upload)
      const report = await getReport(trx, id, owner)
      mayBeCommitted = true
      return report
    })
  } catch (error) {
    // A commit without a reply may have succeeded. The sweep removes what is left.
    if (!mayBeCommitted) await storage.remove(upload.upload).catch(() => {})
    if (!isDuplicateKey(error, 'report_idempotency_key')) throw error
    return repeatReport(open(), request, upload.sha256)
  }
}

async function repeatReport(db: Db, request: NewReport, sha256: string): Promise<FoundReport> {
  const { id, ...rest } = (await findRepeated(db, request)) ?? missing('under this key any more')
  const { groupBy, value, delimiter } = request
  if (isDeepStrictEqual(rest, { sha256, groupBy, value, delimiter }))
    return getReport(db, id, request.owner)
  throw new AppError(
    'conflict',
    'This Idempotency-Key was used for another file, or other columns or delimiter',
  )
}

type FoundReport = Awaited<ReturnType<typeof getReport>>

/** @throws AppError `not_found`, also for another owner's. */
export async function getReport(db: Db, id: string, reader: Subject) {
  const { result, upload, owner, ...row } = await findReadable(db, id, reader)
  const hasResult = row.state === 'succeeded' && result !== null
  return { ...toBrief(row), ...(hasResult && { result: JSON.parse(result) as Summary }) }
}

export async function canRead(db: Db, id: string, reader: Subject): Promise<boolean> {
  const query = db.selectFrom('report').select('owner').where('id', '=', id)
  const report = await query.executeTakeFirst()
  return report !== undefined && isReadable(report, reader)
}

async function findReadable(db: Db, id: string, reader: Subject) {
  const report = await findReport(db, id)
  return report && isReadable(report, reader) ? report : missing(id)
}

const isReadable = ({ owner }: { owner: string | null }, { id, scopes }: Subject) =>
  owner === id || scopes.has('operate')

/** Newest first. */
export const listReports = (db: Db, reader: Subject, page: PageRequest) =>
  pager.read(page, async (before, limit) =>
    (await selectBefore(db, reader, before, limit)).map(toBrief),
  )

/** Cancels an unfinished report and removes any upload. @throws AppError `not_found`. */
export async function cancelReport(
  { jobs, storage }: ReportDeps,
  db: Db,
  id: string,
  reader: Subject,
  signal: AbortSignal,
) {
  const { upload } = await findReadable(db, id, reader)
  await jobs.cancel(db, id).catch(unlessFinished)
  if (upload !== null) {
    await forgetUploads(db, [id])
    await storage.remove(upload, signal)
  }
  return getReport(db, id, reader)
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

export const toState = (state: JobChange['state']) =>
  state === 'scheduled' || state === 'parked' ? 'queued' : state

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

function selectBefore(db: Db, reader: Subject, before: string | undefined, limit: number) {
  let query = fromReports(db).select(COLUMNS).orderBy('report.id', 'desc').limit(limit)
  if (!reader.scopes.has('operate')) query = query.where('report.owner', '=', reader.id)
  if (before !== undefined) query = query.where('report.id', '<', before)
  return query.execute()
}

type Row = Awaited<ReturnType<typeof selectBefore>>[number]

export const findReport = (db: Db, id: string) =>
  fromReports(db)
    .select([...COLUMNS, 'job.result', 'report.upload', 'report.owner'])
    .where('report.id', '=', id)
    .executeTakeFirst()

async function readStored(db: Db, owner: string) {
  const isUnfinished = sql`job.state in (${sql.join(UNFINISHED)})`
  const stored = await fromReports(db)
    .select([
      sql<string>`count(if(${isUnfinished}, 1, null))`.as('unfinished'),
      sql<string>`coalesce(sum(report.bytes), 0)`.as('bytes'),
    ])
    .where('report.owner', '=', owner)
    .where('report.upload', 'is not', null)
    .executeTakeFirstOrThrow()
  return { unfinished: Number(stored.unfinished), bytes: Number(stored.bytes) }
}

async function findRepeated(db: Db, { idempotencyKey, owner }: NewReport) {
  if (idempotencyKey === null) return undefined
  return db
    .selectFrom('report')
    .select(['id', 'sha256', 'group_by as groupBy', 'value_column as value', 'delimiter'])
    .where('idempotency_key', '=', idempotencyKey)
    .where('owner', '=', owner.id)
    .executeTakeFirst()
}

const insert = (
  trx: Transaction<Tables>,
  columns: { id: string; owner: string; idempotency_key: string | null },
  { groupBy, value, ...upload }: Upload,
) =>
  trx
    .insertInto('report')
    .values({ ...columns, ...upload, group_by: groupBy, value_column: value })
    .execute()

export async function forgetUploads(db: Db, ids: readonly string[]): Promise<void> {
  await inPieces(ids, (piece) =>
    db.updateTable('report').set({ upload: null }).where('id', 'in', piece).execute(),
  )
}
