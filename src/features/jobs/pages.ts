import type { Jobs } from '@offloop/jobs/jobs'
import type { JobBrief } from '@offloop/jobs/record'
import type { Db } from '../../db/database.ts'
import { AppError } from '../../errors.ts'
import { Pager } from '../../http/pagination.ts'
import { toTimestamp } from '../../timestamp.ts'
import type { Job, JobDetail, JobPage, PageQuery } from './schema.ts'

const pager = new Pager('job', /[\da-f-]{36}/)

/** One page, newest first. @throws AppError `invalid` when the cursor is not one of ours. */
export function listJobs(
  jobs: Jobs,
  db: Db,
  { state, kind, ...page }: PageQuery,
): Promise<JobPage> {
  return pager.read(page, async (before, limit) =>
    (await jobs.list(db, { state, kind, limit, before })).map(toJob),
  )
}

/** A job with its history. @throws AppError `not_found`. */
export async function getJob(jobs: Jobs, db: Db, id: string): Promise<JobDetail> {
  const record = await jobs.find(db, id)
  if (!record) throw new AppError('not_found', `There is no job ${id}`)
  const attempts = await jobs.attempts(db, id)
  return {
    ...toJob(record),
    input: record.input,
    result: record.result,
    attempts: attempts.map(({ startedAt, finishedAt, ...rest }) => ({
      ...rest,
      startedAt: toTimestamp(startedAt),
      finishedAt: finishedAt && toTimestamp(finishedAt),
    })),
    lastError: attempts.findLast(({ error }) => error !== null)?.error ?? null,
  }
}

/** Without input and result, which may be large. */
export const toJob = ({
  input: _,
  result: __,
  createdAt,
  runAt,
  startedAt,
  finishedAt,
  ...rest
}: JobBrief & { input?: unknown; result?: unknown }): Job => ({
  ...rest,
  createdAt: toTimestamp(createdAt),
  runAt: runAt && toTimestamp(runAt),
  startedAt: startedAt && toTimestamp(startedAt),
  finishedAt: finishedAt && toTimestamp(finishedAt),
})
