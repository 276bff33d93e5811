import { sql, type Transaction } from 'kysely'
import type { Db } from '../db/database.ts'
import type { Tables } from '../db/tables.ts'
import { idList } from './queries.ts'
import type { Claim } from './record.ts'

type Trx = Transaction<Tables>

/** How many rows one turn of the upkeep takes. */
export const UPKEEP_BATCH = 100

/** A place in the order in which jobs are claimed. */
export interface Place {
  priority: number
  id: string
}

const QUEUED_COLUMNS = sql`id, priority, kind, fence, attempt, max_attempts as maxAttempts, request_id as requestId, input`

/**
 * The first of the queue that nobody else is taking. `force index`, because the planner of a small or freshly filled table
 * may find another index as good, and would sort.
 */
export const lockFirst = (trx: Trx, limit: number, after?: Place) => rowsOf<Claim & Place>(claimQuery(limit, after), trx)

/** @param after the place behind which the claim begins; the head of the queue if absent. */
export const claimQuery = (limit: number, after?: Place) => sql<Claim & Place>`
  select ${QUEUED_COLUMNS} from job force index (job_queue)
  where state = 'queued' ${after ? behind(after) : sql``} order by priority, id limit ${sql.lit(limit)} for update skip locked
`

const behind = ({ priority, id }: Place) => sql`and (priority > ${priority} or (priority = ${priority} and id > ${id}))`

/** No job has it: keeps the list from being empty. */
const NO_KIND = ''

/** The first of the queue that are of none of these kinds, and that nobody else is taking. */
export const lockOthers = (trx: Trx, kinds: ReadonlySet<string>, limit: number) =>
  rowsOf<{ id: string }>(
    sql`select id from job force index (job_queue) where state = 'queued' and kind not in (${idList([...kinds, NO_KIND])})
        order by priority, id limit ${sql.lit(limit)} for update skip locked`,
    trx,
  )

/** Those of them that are queued and that nobody else is taking. */
export const lockNamed = (trx: Trx, ids: readonly string[]) =>
  rowsOf<Claim & Place>(
    sql`select ${QUEUED_COLUMNS} from job force index (primary)
        where id in (${idList(ids)}) and state = 'queued' order by id for update skip locked`,
    trx,
  )

/** Those of the claims that their worker still holds, their rows locked. */
export async function lockHeld(trx: Trx, claims: readonly Claim[]): Promise<Set<Claim>> {
  const { rows } = await sql<{ id: string; fence: number; state: string }>`
    select id, fence, state from job force index (primary) where id in (${idList(idsOf(claims))}) order by id for update
  `.execute(trx)
  const fences = new Map(rows.map(({ id, fence, state }) => [id, state === 'running' ? fence : undefined]))
  return new Set(claims.filter(({ id, fence }) => fences.get(id) === fence))
}

/** Those whose time has come and that nobody else is looking at, the longest overdue first. */
export const lockDue = (trx: Trx, state: 'scheduled' | 'running') =>
  rowsOf<{ id: string; attempt: number; maxAttempts: number }>(
    sql`select id, attempt, max_attempts as maxAttempts from job force index (job_due)
        where state = ${state} and due_at <= now(3) order by due_at limit ${sql.lit(UPKEEP_BATCH)} for update skip locked`,
    trx,
  )

export const idsOf = (rows: readonly { id: string }[]) => rows.map(({ id }) => id)

const rowsOf = async <Row>(query: ReturnType<typeof sql<Row>>, db: Db): Promise<Row[]> => (await query.execute(db)).rows
