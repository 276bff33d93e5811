import type { JobRow } from '@offloop/jobs/store'
import { AppError } from '../../errors.ts'
import { type Deps, feature } from '../../feature.ts'
import { type AppContext, getContext } from '../../http/context.ts'
import { Pager } from '../../http/pagination.ts'
import { createRouter, json } from '../../http/router.ts'
import { JOBS, jobChanged, publishJobChanges } from './feed.ts'
import { Job, JobDetail, JobId, JobPage, JobsQuery } from './schema.ts'

/** Jobs of every kind, for operators. */
export const jobsAdmin = feature({
  name: 'jobs-admin',
  path: '/v1/jobs',
  routes: jobRoutes,
  topics: [{ name: JOBS, access: 'operate' }],
  events: [jobChanged],
  start: publishJobChanges,
  usesDatabase: true,
})

const pager = new Pager('job', /[\da-f-]{36}/)

function jobRoutes({ database, jobs }: Deps) {
  const router = createRouter()
  const open = (c: AppContext) => database.withSignal(getContext(c).signal)

  router.openapi({
    method: 'get',
    path: '/',
    operationId: 'listJobs',
    access: 'operate',
    summary: 'List jobs, newest first',
    request: { query: JobsQuery },
    responses: { 200: json(JobPage, 'One page') },
    handler: async (c) => {
      const { state, kind, ...page } = c.req.valid('query')
      const read = (before: string | undefined, limit: number) =>
        jobs.list(open(c), { state, kind, limit, before })
      return c.json(await pager.read(page, read), 200)
    },
  })

  router.openapi({
    method: 'get',
    path: '/{id}',
    operationId: 'readJob',
    access: 'operate',
    summary: 'Read a job with all attempts',
    request: { params: JobId },
    responses: { 200: json(JobDetail, 'The job') },
    handler: async (c) => {
      const { id } = c.req.valid('param')
      const job = await jobs.find(open(c), id)
      if (!job) throw new AppError('not_found', `There is no job ${id}`)
      const attempts = await jobs.attempts(open(c), id)
      const lastError = attempts.findLast(({ error }) => error !== null)?.error ?? null
      return c.json({ ...job, attempts, lastError }, 200)
    },
  })

  router.openapi({
    method: 'post',
    path: '/{id}/retry',
    operationId: 'retryJob',
    access: 'operate',
    summary: 'Queue a failed or cancelled job again, with all of its attempts',
    request: { params: JobId },
    responses: {
      202: json(Job, 'Queued'),
      409: { description: 'It is neither failed nor cancelled' },
    },
    handler: async (c) => c.json(toBrief(await jobs.retry(open(c), c.req.valid('param').id)), 202),
  })

  router.openapi({
    method: 'delete',
    path: '/{id}',
    operationId: 'cancelJob',
    access: 'operate',
    summary: 'Cancel a job: where it runs, its signal aborts within a second',
    request: { params: JobId },
    responses: {
      202: json(Job, 'Cancelled, now or before'),
      409: { description: 'It has succeeded or failed already' },
    },
    handler: async (c) => c.json(toBrief(await jobs.cancel(open(c), c.req.valid('param').id)), 202),
  })

  return router
}

/** Leaves out what may be large. */
const toBrief = ({ input: _, result: __, ...job }: JobRow & { input: unknown; result: unknown }) =>
  job
