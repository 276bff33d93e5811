import { createRoute } from '@hono/zod-openapi'
import { type Deps, feature } from '../../feature.ts'
import { type AppContext, getContext } from '../../http/context.ts'
import { createRouter, json } from '../../http/router.ts'
import { JOBS, jobChanged, publishJobChanges } from './feed.ts'
import { getJob, listJobs, toJob } from './jobs.ts'
import { Job, JobDetail, JobId, JobPage, PageQuery } from './schema.ts'

/** What operators see and do, for jobs of every kind. */
export const jobsAdmin = feature({
  name: 'jobs-admin',
  path: '/v1/jobs',
  routes: jobRoutes,
  topics: [JOBS],
  events: [jobChanged],
  start: publishJobChanges,
  usesDatabase: true,
})

function jobRoutes({ database, jobs }: Deps) {
  const router = createRouter()
  const open = (c: AppContext) => database.withSignal(getContext(c).signal)
  const tags = ['jobs']

  router.openapi(
    createRoute({
      method: 'get',
      path: '/',
      tags,
      operationId: 'listJobs',
      summary: 'List jobs, newest first',
      request: { query: PageQuery },
      responses: { 200: json(JobPage, 'One page') },
    }),
    async (c) => c.json(await listJobs(jobs, open(c), c.req.valid('query')), 200),
  )

  router.openapi(
    createRoute({
      method: 'get',
      path: '/{id}',
      tags,
      operationId: 'readJob',
      summary: 'Read a job with all attempts',
      request: { params: JobId },
      responses: { 200: json(JobDetail, 'The job') },
    }),
    async (c) => c.json(await getJob(jobs, open(c), c.req.valid('param').id), 200),
  )

  router.openapi(
    createRoute({
      method: 'post',
      path: '/{id}/retry',
      tags,
      operationId: 'retryJob',
      summary: 'Queue a failed or cancelled job again, with all of its attempts',
      request: { params: JobId },
      responses: {
        202: json(Job, 'Queued'),
        409: { description: 'It is neither failed nor cancelled' },
      },
    }),
    async (c) => c.json(toJob(await jobs.retry(open(c), c.req.valid('param').id)), 202),
  )

  router.openapi(
    createRoute({
      method: 'delete',
      path: '/{id}',
      tags,
      operationId: 'cancelJob',
      summary: 'Cancel a job: where it runs, its signal aborts within a second',
      request: { params: JobId },
      responses: {
        202: json(Job, 'Cancelled, now or before'),
        409: { description: 'It has succeeded or failed already' },
      },
    }),
    async (c) => c.json(toJob(await jobs.cancel(open(c), c.req.valid('param').id)), 202),
  )

  return router
}
