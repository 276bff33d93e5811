import { z } from '@hono/zod-openapi'
import { type JobChange, NAME } from '@offloop/jobs/job'
import type { JobRow } from '@offloop/jobs/store'
import { AppError } from '../../errors.ts'
import { type Deps, feature } from '../../feature.ts'
import { type AppContext, getContext } from '../../http/context.ts'
import { PageQuery, Pager, pageFields } from '../../http/pagination.ts'
import { createRouter, json } from '../../http/router.ts'
import { event } from '../../realtime/event.ts'

const State = z
  .enum(['scheduled', 'queued', 'running', 'succeeded', 'failed', 'cancelled'])
  .describe('`scheduled` jobs wait for their time or a retry; `failed` ones used up their attempts')

const time = z.iso.datetime()
const KIND_EXAMPLE = 'order.send-receipt'

const Job = z
  .strictObject({
    id: z.uuid(),
    kind: z.string().openapi({ example: KIND_EXAMPLE }),
    state: State,
    priority: z.int().describe('Smaller ones go first'),
    attempt: z.int().describe('How many attempts there were, this one included'),
    maxAttempts: z.int(),
    progress: z.number().min(0).max(1),
    note: z.string().nullable(),
    requestId: z.string().nullable().describe('Of the request that enqueued it'),
    subject: z
      .string()
      .nullable()
      .describe('Who enqueued it, such as `account:7`; null for a schedule'),
    error: z.string().nullable().describe('The public text of the last failure'),
    createdAt: time,
    runAt: time.nullable().describe('When a scheduled job is queued'),
    startedAt: time.nullable(),
    finishedAt: time.nullable(),
  })
  .openapi('Job')

const Attempt = z
  .strictObject({
    attempt: z.int(),
    worker: z.string().describe('Host, process and a random part: `web-1:42:9f2c01ab`'),
    startedAt: time,
    finishedAt: time.nullable(),
    outcome: z
      .enum(['succeeded', 'failed', 'cancelled', 'lost', 'released'])
      .nullable()
      .describe('`lost` with its process, `released` by one that stopped; null while it runs'),
    error: z.string().nullable().describe('What went wrong, for operators'),
  })
  .openapi('JobAttempt')

const JobDetail = z
  .strictObject({
    ...Job.shape,
    input: z.unknown(),
    result: z.unknown(),
    attempts: z.array(Attempt),
    lastError: z.string().nullable().describe('The error of the last attempt that had one'),
  })
  .openapi('JobDetail')

const JobPage = z.strictObject(pageFields(Job)).openapi('JobPage')

const JobId = z.strictObject({ id: z.uuid().toLowerCase() })

const JobsQuery = z.strictObject({
  state: State.optional(),
  kind: z
    .string()
    .regex(NAME, 'must be 1 to 100 ASCII characters without spaces')
    .optional()
    .openapi({ example: KIND_EXAMPLE }),
  ...PageQuery.shape,
})

/** The topic of the jobs of this process. */
const JOBS = 'jobs'

const PUBLISH_EVERY_MS = 200
/** More than the live page shows. */
const MAX_JOBS = 20

const { id, kind, state, progress, note, attempt, error } = Job.shape

const jobChanged = event('job.changed', {
  topic: JOBS,
  when: 'Up to five times a second, when jobs of the process that one is connected to change.',
  payload: z.object({
    jobs: z
      .array(z.object({ id, kind, state, progress, note, attempt, error }))
      .describe(`at most ${MAX_JOBS}, the one that changed last at the end`),
    more: z.boolean().describe('whether others changed, too: then read `GET /v1/jobs`'),
  }),
})

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

const toBrief = ({ input: _, result: __, ...job }: JobRow & { input: unknown; result: unknown }) =>
  job

/**
 * Publishes the latest change of each job, up to a limit. Slow clients miss some and read the list.
 */
function publishJobChanges({ jobs, realtime }: Pick<Deps, 'jobs' | 'realtime'>): () => void {
  const latest = new Map<string, JobChange>()
  let more = false
  let timer: NodeJS.Timeout | undefined

  const publish = () => {
    timer = undefined
    realtime.emitLatest(JOBS, jobChanged, { jobs: [...latest.values()], more })
    latest.clear()
    more = false
  }

  const unsubscribe = jobs.onChange((change) => {
    // Deleted first, so that the job moves to the end.
    latest.delete(change.id)
    latest.set(change.id, change)
    timer ??= setTimeout(publish, PUBLISH_EVERY_MS).unref()
    if (latest.size <= MAX_JOBS) return
    more = true
    latest.delete(latest.keys().next().value as string)
  })

  return () => {
    unsubscribe()
    clearTimeout(timer)
  }
}
