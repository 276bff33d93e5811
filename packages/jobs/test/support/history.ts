import { sql } from 'kysely'
import type { Db } from '../../tables.ts'

/** The most that ran at once, by the history of the attempts. */
export async function findMost(db: Db, group: 'kind' | 'limit_key'): Promise<Map<string, number>> {
  const { rows } = await sql<{ name: string; begins: Date; ends: Date | null }>`
    select ${sql.ref(`job.${group}`)} as name, job_attempt.started_at as begins,
      job_attempt.finished_at as ends
    from job_attempt join job on job.id = job_attempt.job_id
  `.execute(db)
  const most = new Map<string, number>()
  for (const [name, attempts] of Map.groupBy(rows, (row) => row.name)) {
    const changes = attempts.flatMap(({ begins, ends }) => [
      { at: begins.getTime(), by: 1 },
      { at: ends?.getTime() ?? Number.POSITIVE_INFINITY, by: -1 },
    ])
    // What ends in the millisecond in which another begins was over before.
    changes.sort((a, b) => a.at - b.at || a.by - b.by)
    let now = 0
    for (const { by } of changes) {
      now += by
      most.set(name, Math.max(most.get(name) ?? 0, now))
    }
  }
  return most
}
