import { sql, type Transaction } from 'kysely'
import type { Db } from '../../src/db/database.ts'
import type { Tables } from '../../src/db/tables.ts'
import { idList } from './queries.ts'
import type { Claim } from './record.ts'

type Trx = Transaction<Tables>

/** How many rows one turn of the upkeep takes. */
export const UPKEEP_BATCH = 100

const QUEUED_COLUMNS = sql`id, kind, fence, attempt, max_attempts as maxAttempts, request_id as requestId, input`

/** The first of the queue of these kinds that nobody else is taking. */
export const lockFirst = (trx: Trx, limit: number, kinds: readonly string[]) =>
  rowsOf<Claim>(claimQuery(limit, kinds), trx)

/**
 * `force index`, because the planner of a small or freshly filled table may find another index as
 * good, and would sort.
 *
 * @param kinds all, if absent.
 */
export const claimQuery = (limit: number, kinds?: readonly string[]) => sql<Claim>`
  select ${QUEUED_COLUMNS} from job force index (job_queue)
  where state = 'queued' ${ofKinds(kinds)} order by priority, id limit ${limit} for update skip locked
`

/** The first of the queue of these kinds, whoever may be taking them. */
export const readFirst = async (trx: Trx, limit: number, kinds: readonly string[]) =>
  idsOf(
    await rowsOf<{ id: string }>(
      sql`select id from job force index (job_queue)
          where state = 'queued' ${ofKinds(kinds)} order by priority, id limit ${limit}`,
      trx,
    ),
  )

const ofKinds = (kinds?: readonly string[]) => (kinds ? sql`and kind in (${idList(kinds)})` : sql``)

/** Those of them that are queued and that nobody else is taking. */
export const lockNamed = (trx: Trx, ids: readonly string[]) =>
  rowsOf<Claim>(
    sql`select ${QUEUED_COLUMNS} from job force index (primary)
        where id in (${idList(ids)}) and state = 'queued' order by id for update skip locked`,
    trx,
  )

/** Those of the claims that their worker still holds, their rows locked. */
export async function lockHeld(trx: Trx, claims: readonly Claim[]): Promise<Set<Claim>> {
  const { rows } = await sql<{ id: string; fence: number; state: string }>`
    select id, fence, state from job force index (primary) where id in (${idList(idsOf(claims))}) order by id for update
  `.execute(trx)
  const fences = new Map(
    rows.map(({ id, fence, state }) => [id, state === 'running' ? fence : undefined]),
  )
  return new Set(claims.filter(({ id, fence }) => fences.get(id) === fence))
}

/**
 * Those whose time has come, the longest overdue first. Without locks: while an old transaction
 * keeps the index entries of what was due since, a walk that locks each of them takes some twenty
 * times as long.
 */
export const findDue = async (db: Db, state: 'scheduled' | 'running') =>
  idsOf(
    await rowsOf<{ id: string }>(
      sql`select id from job force index (job_due)
          where state = ${state} and due_at <= now(3) order by state, due_at limit ${sql.lit(UPKEEP_BATCH)}`,
      db,
    ),
  )

export type Due = Pick<Claim, 'id' | 'attempt' | 'maxAttempts'>

/** Those of them that are still due and that nobody else is looking at. */
export const lockDue = (trx: Trx, state: 'scheduled' | 'running', ids: readonly string[]) =>
  rowsOf<Due>(
    sql`select id, attempt, max_attempts as maxAttempts from job force index (primary)
        where id in (${idList(ids)}) and state = ${state} and due_at <= now(3) order by id for update skip locked`,
    trx,
  )

export const idsOf = (rows: readonly { id: string }[]) => rows.map(({ id }) => id)

const rowsOf = async <Row>(query: ReturnType<typeof sql<Row>>, db: Db): Promise<Row[]> =>
  (await query.execute(db)).rows
