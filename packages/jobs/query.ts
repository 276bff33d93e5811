import { type RawBuilder, sql } from 'kysely'
import { decodeKey, encodeKey } from './enqueue.ts'
import { type JobChange, STATES } from './job.ts'
import { type Db, type JobState, typed } from './tables.ts'

/** Takes about 10 ms by an index. */
export const MAX_COUNTED = 100_000
const MAX_KINDS = 200
/** Of each kind: the first by id may not have waited longest. */
const OLDEST_READ = 100
/** Read one by one for the rest of a filter. */
const MAX_OF_REQUEST = 10_000

export interface JobFilter {
  state?: JobState | undefined
  kind?: string | undefined
  key?: string | undefined
  requestId?: string | undefined
  /** Inclusive. */
  createdAfter?: Date | undefined
  /** Exclusive. */
  createdBefore?: Date | undefined
}

/** A job without input and result. */
export interface JobRow extends JobChange {
  priority: number
  subject: string | null
  key: string | null
  maxAttempts: number
  requestId: string | null
  createdAt: Date
  startedAt: Date | null
  finishedAt: Date | null
  runAt: Date | null
}

export interface JobDetail extends JobRow {
  input: unknown
  result: unknown
}

export interface Slice {
  limit: number
  before?: string | undefined
}

export const CHANGE = sql`job.id, job.kind, job.state, progress, note, attempt, error`
export const QUEUED_AT = sql`coalesce(due_at, created_at)`
const ROW = sql`
  ${CHANGE}, priority, subject, dedupe_key as \`key\`, max_attempts as maxAttempts,
  request_id as requestId, created_at as createdAt, started_at as startedAt,
  finished_at as finishedAt, if(state = 'scheduled', due_at, null) as runAt
`

export async function findJob(db: Db, id: string, lock = false): Promise<JobDetail | undefined> {
  const { rows } = await sql<JobRow & { input: string; result: string | null }>`
    select ${ROW}, input, result from job where id = ${id} ${lock ? sql`for update` : sql``}
  `.execute(db)
  const [row] = rows
  if (!row) return undefined
  const input = JSON.parse(row.input)
  return { ...toRow(row), input, result: JSON.parse(row.result ?? 'null') }
}

/** Newest first. */
export async function listJobs(db: Db, { limit, before, ...filter }: JobFilter & Slice) {
  const { kind, state, key, requestId } = filter
  const isByKind = kind !== undefined && (key ?? requestId) === undefined
  const states = isByKind && state === undefined ? STATES : [state]
  const lists = states.map((each) => newest(ROW, { ...filter, state: each }, { limit, before }))
  const [first] = lists as [RawBuilder<JobRow>]
  const query = lists.length === 1 ? first : sql<JobRow>`${union(lists)} limit ${limit}`
  return (await query.execute(db)).rows.map(toRow)
}

const union = (lists: readonly RawBuilder<unknown>[]) => {
  const parts = lists.map((list) => sql`(${list})`)
  return sql`${sql.join(parts, sql` union all `)} order by id desc`
}

export async function findIds(db: Db, filter: JobFilter & { state: JobState }, slice: Slice) {
  const { rows } = await newest<{ id: string }>(sql`job.id`, filter, slice).execute(db)
  return rows.map(({ id }) => id)
}

export async function countJobs(
  db: Db,
  filter: Omit<JobFilter, 'state'> = {},
): Promise<Record<JobState, number>> {
  if (filter.requestId !== undefined) return countOfRequest(db, filter)
  const counts = STATES.map((state) => {
    const { from, where } = toRange({ ...filter, state })
    return sql`${countSome(sql`${from} where ${where}`)} as ${sql.ref(state)}`
  })
  const { rows } = await sql<Record<JobState, string>>`select ${sql.join(counts)}`.execute(db)
  const entries = STATES.map((state) => [state, Number(rows[0]?.[state])])
  return Object.fromEntries(entries) as Record<JobState, number>
}

/** The number of rows, up to MAX_COUNTED. @param from what follows `from`. */
export const countSome = (from: RawBuilder<unknown>) => sql`(
  select count(*) from (select 1 as one from ${from} limit ${sql.lit(MAX_COUNTED)}) as some
)`

async function countOfRequest(db: Db, filter: JobFilter) {
  const { from, where } = toRange(filter)
  const { rows } = await sql<{ state: JobState; count: string }>`
    select job.state, count(*) as count from ${from} where ${where} group by job.state
  `.execute(db)
  const none = Object.fromEntries(STATES.map((state) => [state, 0])) as Record<JobState, number>
  return { ...none, ...Object.fromEntries(rows.map((row) => [row.state, Number(row.count)])) }
}

export async function listKinds(db: Db): Promise<string[]> {
  const { rows } = await sql<{ kind: string }>`
    select distinct kind from job force index (job_kind) order by kind limit ${sql.lit(MAX_KINDS)}
  `.execute(db)
  return rows.map(({ kind }) => kind)
}

export interface Waiting {
  /** Each kind counts up to 100 000. */
  queues: { queue: string; queued: number; oldestMs: number }[]
  parked: { kind: string; count: number }[]
}

/** @param queueOf by kind; for other kinds, what a job has. */
export async function countWaiting(db: Db, queueOf: ReadonlyMap<string, string>): Promise<Waiting> {
  const kinds = await listKinds(db)
  if (kinds.length === 0) return { queues: [], parked: [] }
  const count = (kind: string, state: JobState) =>
    countSome(sql`job force index (job_kind) where kind = ${kind} and state = ${sql.lit(state)}`)
  const parts = kinds.map(
    (kind) => sql`(
    select ${kind} as kind, ${count(kind, 'queued')} as queued, ${count(kind, 'parked')} as parked,
      max(queue) as queue, max(timestampdiff(microsecond, since, now(3))) as waited
    from (
      select queue, ${QUEUED_AT} as since from job force index (job_kind)
      where kind = ${kind} and state = 'queued'
      order by kind, state, id limit ${sql.lit(OLDEST_READ)}
    ) as oldest
  )`,
  )
  const { rows } = await sql<{
    kind: string
    queue: string | null
    queued: string
    parked: string
    waited: string | null
  }>`${sql.join(parts, sql` union all `)}`.execute(db)
  const byQueue = Map.groupBy(
    rows.filter(({ queue }) => queue !== null),
    ({ kind, queue }) => queueOf.get(kind) ?? (queue as string),
  )
  return {
    queues: [...byQueue].map(([queue, ofQueue]) => ({
      queue,
      queued: ofQueue.reduce((sum, { queued }) => sum + Number(queued), 0),
      oldestMs: Math.max(0, ...ofQueue.map(({ waited }) => Number(waited) / 1_000)),
    })),
    parked: rows
      .filter(({ parked }) => Number(parked) > 0)
      .map(({ kind, parked }) => ({ kind, count: Number(parked) })),
  }
}

export const listAttempts = (db: Db, id: string) =>
  typed(db)
    .selectFrom('job_attempt')
    .select(['attempt', 'worker', 'outcome', 'error'])
    .select(['started_at as startedAt', 'finished_at as finishedAt'])
    .where('job_id', '=', id)
    .orderBy('fence')
    .execute()

function newest<Row>(columns: RawBuilder<unknown>, filter: JobFilter, { limit, before }: Slice) {
  const { from, where, order } = toRange(filter, before)
  return sql<Row>`
    select ${columns} from ${from} where ${where} order by ${order} limit ${limit}
  `
}

/** One range of an index, in the order of all its columns. */
function toRange({ state, kind, key, requestId, ...created }: JobFilter, before?: string) {
  const ids = toIdBounds({ ...created, before })
  const where = allOf(
    ...ids,
    state && sql`job.state = ${sql.lit(state)}`,
    kind !== undefined && sql`job.kind = ${kind}`,
    key !== undefined && sql`job.dedupe_key = ${encodeKey(key)}`,
  )
  const by = (index: string, order: RawBuilder<unknown>) => {
    const from = sql`job force index (${sql.raw(index)})`
    return { from, where, order }
  }
  if (requestId !== undefined) return { ...ofRequest(requestId, ids), where }
  if (key !== undefined) return by('job_dedupe', sql`job.id desc`)
  if (kind !== undefined) return by('job_kind', sql`job.kind desc, job.state desc, job.id desc`)
  if (state !== undefined) return by('job_state', sql`job.state desc, job.id desc`)
  return by('primary', sql`job.id desc`)
}

function ofRequest(requestId: string, ids: readonly RawBuilder<unknown>[]) {
  const from = sql`(
    select job.id from job force index (job_request)
    where ${allOf(sql`request_id = ${requestId}`, ...ids)}
    order by request_id desc, id desc limit ${sql.lit(MAX_OF_REQUEST)}
  ) as newest straight_join job force index (primary) on job.id = newest.id`
  return { from, order: sql`newest.id desc` }
}

/** Ids begin with their time. */
function toIdBounds({
  createdAfter,
  createdBefore,
  before,
}: Pick<JobFilter, 'createdAfter' | 'createdBefore'> & { before?: string | undefined }) {
  const bounds = [
    createdAfter && sql`job.id >= ${toFirstId(createdAfter)}`,
    createdBefore && sql`job.id < ${toFirstId(createdBefore)}`,
    before !== undefined && sql`job.id < ${before}`,
  ]
  return bounds.filter((bound) => bound !== undefined && bound !== false)
}

function toFirstId(time: Date): string {
  const hex = Math.max(0, time.getTime()).toString(16).padStart(12, '0')
  return `${hex.slice(0, 8)}-${hex.slice(8)}-`
}

function allOf(...conditions: (RawBuilder<unknown> | false | undefined)[]) {
  const given = conditions.filter((condition) => condition !== undefined && condition !== false)
  return given.length === 0 ? sql`true` : sql.join(given, sql` and `)
}

const toRow = <Row extends JobRow>(row: Row): Row => ({
  ...row,
  key: row.key === null ? null : decodeKey(row.key),
})
