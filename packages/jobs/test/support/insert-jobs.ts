import type { Db, JobState } from '../../tables.ts'

/** Thousands of jobs, older than any that is enqueued. */
export async function insertJobs(
  db: Db,
  count: number,
  { kind = 'test.some', state = 'queued' as JobState, ...columns }: Record<string, unknown> = {},
) {
  series++
  const rows = Array.from({ length: count }, (_, index) => ({
    id: `0${String(series).padStart(7, '0')}-0000-7000-8000-${String(index).padStart(12, '0')}`,
    kind,
    state,
    due_at: null,
    priority: 0,
    max_attempts: 1,
    input: 'null',
    ...columns,
  }))
  for (let from = 0; from < count; from += 1_000)
    await db
      .insertInto('job')
      .values(rows.slice(from, from + 1_000))
      .execute()
  return rows.map(({ id }) => id)
}

let series = 0
