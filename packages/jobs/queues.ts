import { sql } from 'kysely'
import { JobError } from './errors.ts'
import { countSome, listKinds } from './query.ts'
import { type Db, typed } from './tables.ts'

export const RENEW_QUEUES_MS = 10_000
/** Without renewal for so long, no process runs a queue. */
const GONE_MS = 3 * RENEW_QUEUES_MS

export interface QueueRow {
  queue: string
  isRun: boolean
  pausedAt: Date | null
  queued: number
  running: number
}

export async function findPaused(db: Db): Promise<Set<string>> {
  const rows = await typed(db)
    .selectFrom('job_queue_state')
    .select('queue')
    .where('paused_at', 'is not', null)
    .execute()
  return new Set(rows.map(({ queue }) => queue))
}

/** Sorted against deadlocks. */
export async function renewQueues(db: Db, queues: Iterable<string>): Promise<void> {
  const rows = [...queues].sort().map((queue) => sql`(${queue}, now(3))`)
  await sql`
    insert into job_queue_state (queue, run_at) values ${sql.join(rows)}
    on duplicate key update run_at = now(3)
  `.execute(db)
}

/**
 * @param queueOf by kind.
 * @throws JobError `not_found` for a queue that no job and no process names.
 */
export async function setPaused(
  db: Db,
  queue: string,
  { paused, queueOf }: { paused: boolean; queueOf: ReadonlyMap<string, string> },
): Promise<void> {
  const isKnown = (await listQueues(db, queueOf)).some((row) => row.queue === queue)
  if (!isKnown) throw new JobError('not_found', `There is no queue ${queue}`)
  await sql`
    insert into job_queue_state (queue, paused_at) values (${queue}, if(${paused}, now(3), null))
    on duplicate key update paused_at = if(${paused}, coalesce(paused_at, now(3)), null)
  `.execute(db)
}

/** @param queueOf by kind; for other kinds, what a job has. */
export async function listQueues(
  db: Db,
  queueOf: ReadonlyMap<string, string>,
): Promise<QueueRow[]> {
  const rows = new Map<string, QueueRow>()
  const find = (queue: string) =>
    rows.getOrInsertComputed(queue, () => ({
      queue,
      isRun: false,
      pausedAt: null,
      queued: 0,
      running: 0,
    }))
  for (const queue of queueOf.values()) find(queue)
  for (const { queue, pausedAt, isRun } of await readStates(db))
    Object.assign(find(queue), { pausedAt, isRun: Number(isRun) === 1 })
  for (const { kind, queue, queued, running } of await countKinds(db)) {
    const row = find(queueOf.get(kind) ?? queue)
    row.queued += Number(queued)
    row.running += Number(running)
  }
  return [...rows.values()].sort((a, b) => (a.queue < b.queue ? -1 : 1))
}

async function readStates(db: Db) {
  const { rows } = await sql<{ queue: string; pausedAt: Date | null; isRun: number | string }>`
    select queue, paused_at as pausedAt, ${IS_RUN} as isRun from job_queue_state
    where paused_at is not null or ${IS_RUN}
  `.execute(db)
  return rows
}

const IS_RUN = sql`coalesce(run_at > now(3) - interval ${sql.lit(GONE_MS / 1_000)} second, false)`

async function countKinds(db: Db) {
  const kinds = await listKinds(db)
  if (kinds.length === 0) return []
  const lists = kinds.map((kind) => {
    const jobs = (state: 'queued' | 'running') =>
      sql`job force index (job_queue) where state = ${sql.lit(state)} and kind = ${kind}`
    const first = (state: 'queued' | 'running') => sql`(select queue from ${jobs(state)} limit 1)`
    return sql`
      select ${kind} as kind, coalesce(${first('queued')}, ${first('running')}) as queue,
        ${countSome(jobs('queued'))} as queued, ${countSome(jobs('running'))} as running
    `
  })
  const { rows } = await sql<{
    kind: string
    queue: string | null
    queued: string
    running: string
  }>`
    ${sql.join(lists, sql` union all `)}
  `.execute(db)
  return rows.filter((row): row is typeof row & { queue: string } => row.queue !== null)
}
