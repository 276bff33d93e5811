import { createRoute } from '@hono/zod-openapi'
import { type Deps, feature } from '../../feature.ts'
import { type AppContext, getContext } from '../../http/context.ts'
import { createRouter, json } from '../../http/router.ts'
import { JOBS, jobChanged } from './contract.ts'
import { publishJobChanges } from './feed.ts'
import { getJob, listJobs, toJob } from './pages.ts'
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
  const dbOf = (c: AppContext) => database.withSignal(getContext(c).signal)

  router.openapi(list, async (c) =>
    c.json(await listJobs(jobs, dbOf(c), c.req.valid('query')), 200),
  )

  router.openapi(read, async (c) =>
    c.json(await getJob(jobs, dbOf(c), c.req.valid('param').id), 200),
  )

  router.openapi(retry, async (c) =>
    c.json(toJob(await jobs.retry(dbOf(c), c.req.valid('param').id)), 202),
  )

  router.openapi(cancel, async (c) =>
    c.json(toJob(await jobs.cancel(dbOf(c), c.req.valid('param').id)), 202),
  )

  return router
}

const tags = ['jobs']

const list = createRoute({
  method: 'get',
  path: '/',
  tags,
  operationId: 'listJobs',
  summary: 'List jobs, newest first',
  request: { query: PageQuery },
  responses: { 200: json(JobPage, 'One page') },
})

const read = createRoute({
  method: 'get',
  path: '/{id}',
  tags,
  operationId: 'readJob',
  summary: 'Read a job, with every attempt at it',
  request: { params: JobId },
  responses: { 200: json(JobDetail, 'The job') },
})

const retry = createRoute({
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
})

const cancel = createRoute({
  method: 'delete',
  path: '/{id}',
  tags,
  operationId: 'cancelJob',
  summary: 'Cancel a job: a running one is told to end within a second, wherever it runs',
  request: { params: JobId },
  responses: {
    202: json(Job, 'Cancelled, or was before'),
    409: { description: 'It has succeeded or failed already' },
  },
})
