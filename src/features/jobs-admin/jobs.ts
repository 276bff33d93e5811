import type { Jobs } from '@offloop/jobs/jobs'
import type { JobRow } from '@offloop/jobs/store'
import type { Db } from '../../db/database.ts'
import { AppError } from '../../errors.ts'
import { Pager } from '../../http/pagination.ts'
import { toTimestamp } from '../../timestamp.ts'
import type { Job, JobDetail, JobPage, PageQuery } from './schema.ts'

const pager = new Pager('job', /[\da-f-]{36}/)

/** One page, newest first. @throws AppError `invalid` for a cursor of another list. */
export const listJobs = (
  jobs: Jobs,
  db: Db,
  { state, kind, ...page }: PageQuery,
): Promise<JobPage> =>
  pager.read(page, async (before, limit) =>
    (await jobs.list(db, { state, kind, limit, before })).map(toJob),
  )

/** A job with its attempts. @throws AppError `not_found`. */
export async function getJob(jobs: Jobs, db: Db, id: string): Promise<JobDetail> {
  const job = await jobs.find(db, id)
  if (!job) throw new AppError('not_found', `There is no job ${id}`)
  const attempts = await jobs.attempts(db, id)
  return {
    ...toJob(job),
    input: job.input,
    result: job.result,
    attempts: attempts.map(({ startedAt, finishedAt, ...attempt }) => ({
      ...attempt,
      startedAt: toTimestamp(startedAt),
      finishedAt: finishedAt && toTimestamp(finishedAt),
    })),
    lastError: attempts.findLast(({ error }) => error !== null)?.error ?? null,
  }
}

/** Leaves out input and result, which may be large. */
export function toJob(job: JobRow & { input?: unknown; result?: unknown }): Job {
  const { input: _, result: __, createdAt, runAt, startedAt, finishedAt, ...fields } = job
  return {
    ...fields,
    createdAt: toTimestamp(createdAt),
    runAt: runAt && toTimestamp(runAt),
    startedAt: startedAt && toTimestamp(startedAt),
    finishedAt: finishedAt && toTimestamp(finishedAt),
  }
}
