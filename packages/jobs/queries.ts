import { randomUUIDv7 } from 'node:crypto'
import { type RawBuilder, sql, type Transaction } from 'kysely'
import type { Db } from '../../src/db/database.ts'
import { isDuplicateKey } from '../../src/db/errors.ts'
import type { Tables } from '../../src/db/tables.ts'
import { CHANGE_COLUMNS, type JobChange } from './job.ts'
import {
  type AttemptRecord,
  BRIEF_COLUMNS,
  type JobBrief,
  type JobRecord,
  STATES,
  toBrief,
  toRecord,
} from './record.ts'
import type { AttemptOutcome, JobState } from './tables.ts'

type Trx = Transaction<Tables>

/** A row as the caller of `enqueue` wants it. */
export interface NewJob {
  kind: string
  input: string
  maxAttempts: number
  priority: number
  runAt: Date | null
  dedupeKey: string | null
  requestId: string | null
}

/** By the database's clock, the only one that all processes share. */
export const now = sql<Date>`now(3)`

export const later = (ms: number) => sql<Date>`now(3) + interval (${ms} * 1000) microsecond`

/**
 * A list of ids for `in`. The server keeps every statement that it prepared, and they differ by the
 * length of their lists: filled up to the next power of two, with ids that they have already, there
 * are few of them.
 */
export function idList(ids: readonly string[]): RawBuilder<string> {
  const length = 2 ** Math.ceil(Math.log2(ids.length))
  return sql.join(Array.from({ length }, (_, index) => ids[index] ?? ids.at(-1)))
}

/**
 * Inserts a job and gives its id and state, or those of the unfinished job that has the same key.
 */
export async function insertJob(
  trx: Trx,
  { kind, runAt, dedupeKey, ...job }: NewJob,
): Promise<{ id: string; state: JobState }> {
  const id = randomUUIDv7()
  const dueAt = runAt && sql<Date>`cast(${runAt} as datetime(3))`
  const values = {
    id,
    kind,
    state: dueAt
      ? sql<JobState>`if(${dueAt} > now(3), 'scheduled', 'queued')`
      : ('queued' as const),
    due_at: dueAt && sql<Date>`if(${dueAt} > now(3), ${dueAt}, null)`,
    priority: job.priority,
    max_attempts: job.maxAttempts,
    dedupe_key: dedupeKey,
    request_id: job.requestId,
    input: job.input,
  }
  try {
    await trx.insertInto('job').values(values).execute()
  } catch (error) {
    if (dedupeKey === null || !isDuplicateKey(error, 'job_dedupe')) throw error
    return findByKey(trx, kind, dedupeKey)
  }
  return { id, state: runAt ? await stateOf(trx, id) : 'queued' }
}

/**
 * The failed insert left a lock on it, so that it is there; a plain read may be from before it was.
 */
const findByKey = (trx: Trx, kind: string, key: string) =>
  trx
    .selectFrom('job')
    .select(['id', 'state'])
    .where('kind', '=', kind)
    .where('dedupe_key', '=', key)
    .modifyEnd(sql`lock in share mode`)
    .executeTakeFirstOrThrow()

async function stateOf(trx: Trx, id: string): Promise<JobState> {
  return (
    await trx.selectFrom('job').select('state').where('id', '=', id).executeTakeFirstOrThrow()
  ).state
}

/** Closes the attempts that these jobs have open: one each at the most. */
export const closeAttempts = (
  trx: Trx,
  ids: readonly string[],
  outcome: AttemptOutcome,
  error: string | null = null,
) =>
  sql`update job_attempt set outcome = ${outcome}, error = ${error}, finished_at = now(3)
      where job_id in (${idList(ids)}) and outcome is null`.execute(trx)

export const lockJob = (trx: Trx, id: string) =>
  trx.selectFrom('job').selectAll().where('id', '=', id).forUpdate().executeTakeFirst()

/** How these jobs are now. */
export async function readChanges(db: Db, ids: readonly string[]): Promise<JobChange[]> {
  if (ids.length === 0) return []
  const { rows } =
    await sql<JobChange>`select ${columns(CHANGE_COLUMNS)} from job where id in (${idList(ids)})`.execute(
      db,
    )
  return rows
}

export const columns = (names: readonly string[]) => sql.join(names.map((name) => sql.ref(name)))

export async function readJob(trx: Trx, id: string): Promise<JobRecord> {
  return toRecord(
    await trx.selectFrom('job').selectAll().where('id', '=', id).executeTakeFirstOrThrow(),
  )
}

export async function findJob(db: Db, id: string): Promise<JobRecord | undefined> {
  const row = await db.selectFrom('job').selectAll().where('id', '=', id).executeTakeFirst()
  return row && toRecord(row)
}

/**
 * At most `limit` jobs, newest first, that came before the job `before`; their results would be
 * megabytes.
 */
export async function listJobs(
  db: Db,
  {
    limit,
    before,
    state,
    kind,
  }: {
    limit: number
    before?: string | undefined
    state?: JobState | undefined
    kind?: string | undefined
  },
): Promise<JobBrief[]> {
  let query = db.selectFrom('job').select(BRIEF_COLUMNS).orderBy('id', 'desc').limit(limit)
  if (before !== undefined) query = query.where('id', '<', before)
  if (state !== undefined) query = query.where('state', '=', state)
  if (kind !== undefined) query = query.where('kind', '=', kind)
  return (await query.execute()).map(toBrief)
}

/** Every time that the job was begun, in order. */
export const listAttempts = (db: Db, id: string): Promise<AttemptRecord[]> =>
  db
    .selectFrom('job_attempt')
    .select([
      'attempt',
      'worker',
      'started_at as startedAt',
      'finished_at as finishedAt',
      'outcome',
      'error',
    ])
    .where('job_id', '=', id)
    .orderBy('fence')
    .execute()

/**
 * How many jobs of a state are counted: reading the index takes about 10 ms for these, and a second
 * for ten million.
 */
const MAX_COUNTED = 100_000

/** How many jobs there are in each state, up to `MAX_COUNTED`. */
export async function countJobs(db: Db): Promise<Record<JobState, number>> {
  const counts = STATES.map(
    (state) => sql`(
      select count(*) from (select 1 as one from job where state = ${sql.lit(state)} limit ${sql.lit(MAX_COUNTED)}) as jobs
    ) as ${sql.ref(state)}`,
  )
  const { rows } = await sql<Record<JobState, string>>`select ${sql.join(counts)}`.execute(db)
  return Object.fromEntries(STATES.map((state) => [state, Number(rows[0]?.[state])])) as Record<
    JobState,
    number
  >
}
