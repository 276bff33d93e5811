import { FINISHED } from '@offloop/jobs/job'
import { type GeneratedAlways, type NotNull, sql, type Transaction } from 'kysely'
import type { Db } from '../../db/database.ts'
import { inPieces } from '../../db/prepared.ts'
import type { Tables } from '../../db/tables.ts'
import { SUMMARY_VERSION, type Summary, type SummaryOptions } from './contract.ts'

const SWEEP_BATCH = 500

declare module '../../db/tables.ts' {
  interface Tables {
    report: ReportTable
  }
}

interface ReportTable {
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

/** A complete upload with the options of its report. */
export interface Upload extends SummaryOptions {
  upload: string
  bytes: number
  sha256: string
}

const REPORT_COLUMNS = [
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

const reports = (db: Db) => db.selectFrom('report').innerJoin('job', 'job.id', 'report.id')

export type ReportRow = Awaited<ReturnType<typeof listReports>>[number]

/** Finds reports older than the report `before`, newest first. */
export function listReports(db: Db, limit: number, before: string | undefined) {
  const query = reports(db).select(REPORT_COLUMNS).orderBy('report.id', 'desc').limit(limit)
  return (before === undefined ? query : query.where('report.id', '<', before)).execute()
}

export const findReport = (db: Db, id: string) =>
  reports(db)
    .select([...REPORT_COLUMNS, 'job.result', 'report.upload'])
    .where('report.id', '=', id)
    .executeTakeFirst()

export const findByKey = (db: Db, key: string) =>
  db
    .selectFrom('report')
    .select(['id', 'sha256', 'group_by as groupBy', 'value_column as value', 'delimiter'])
    .where('idempotency_key', '=', key)
    .executeTakeFirst()

/** Violates the key `report_idempotency_key` if another report has `idempotency_key`. */
export const insertReport = (
  trx: Transaction<Tables>,
  id: string,
  { groupBy, value, ...upload }: Upload,
  idempotency_key: string | null,
) =>
  trx
    .insertInto('report')
    .values({ id, ...upload, group_by: groupBy, value_column: value, idempotency_key })
    .execute()

/** Finds an earlier result for the same bytes, columns and delimiter. */
export async function findResult(
  db: Db,
  { sha256, groupBy, value, delimiter }: Omit<Upload, 'upload' | 'bytes'>,
): Promise<Summary | undefined> {
  const row = await reports(db)
    .select('job.result')
    .where('report.sha256', '=', sha256)
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

export async function forgetUploads(db: Db, ids: readonly string[]): Promise<void> {
  await inPieces(ids, (piece) =>
    db.updateTable('report').set({ upload: null }).where('id', 'in', piece).execute(),
  )
}

/** Finds uploads of finished reports created a day or cancelled an hour ago. */
export const listOldUploads = (db: Db) =>
  reports(db)
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

export async function findKnownUploads(db: Db, uploads: readonly string[]): Promise<Set<unknown>> {
  const rows = await inPieces(uploads, (piece) =>
    db.selectFrom('report').select('upload').where('upload', 'in', piece).execute(),
  )
  return new Set(rows.map(({ upload }) => upload))
}

export async function findRunning(db: Db, ids: readonly string[]): Promise<Set<string>> {
  const running = db.selectFrom('job').select('id').where('state', '=', 'running')
  const rows = await inPieces(ids, (piece) => running.where('id', 'in', piece).execute())
  return new Set(rows.map(({ id }) => id))
}
