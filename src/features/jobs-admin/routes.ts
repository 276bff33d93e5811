import { z } from '@hono/zod-openapi'
import { MAX_KEY_CHARACTERS, REQUEST_ID } from '@offloop/jobs/enqueue'
import {
  type JobChange,
  NAME,
  QUEUE,
  QUEUE_FORM,
  RETRYABLE,
  STATES,
  UNFINISHED,
} from '@offloop/jobs/job'
import { type JobRow, MAX_COUNTED } from '@offloop/jobs/query'
import { AppError } from '../../errors.ts'
import { type Deps, feature } from '../../feature.ts'
import { type AppContext, getContext } from '../../http/context.ts'
import { PageQuery, Pager, pageFields } from '../../http/pagination.ts'
import { text } from '../../http/params.ts'
import { createRouter, json, jsonBody } from '../../http/router.ts'
import { event } from '../../realtime/event.ts'

const State = z
  .enum(STATES)
  .describe(
    '`scheduled` jobs wait for their time or a retry; `failed` ones used up their attempts; ' +
      '`parked` ones wait for a process that handles their kind, since none had for a day',
  )

const time = z.iso.datetime()
const KIND_EXAMPLE = 'order.send-receipt'
const NAME_RULE = 'must be 1 to 100 ASCII characters without spaces'

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
    key: z.string().nullable().describe('The dedupe key, until it is finished'),
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

export type Job = z.infer<typeof Job>

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

export type JobDetail = z.infer<typeof JobDetail>

const JobPage = z.strictObject(pageFields(Job)).openapi('JobPage')

const JobId = z.strictObject({ id: z.uuid().toLowerCase() })

const pastTime = (which: string) =>
  time
    .transform((value) => new Date(value))
    .optional()
    .openapi({ type: 'string', format: 'date-time', description: `Created ${which}` })

const Filter = z.strictObject({
  kind: z.string().regex(NAME, NAME_RULE).optional().openapi({ example: KIND_EXAMPLE }),
  key: text()
    .min(1)
    .max(2 * MAX_KEY_CHARACTERS)
    .optional()
    .describe('The dedupe key, which only unfinished jobs have'),
  requestId: z
    .string()
    .regex(REQUEST_ID, 'must be 1 to 128 ASCII characters without spaces')
    .optional()
    .describe('Of the request that enqueued them; of more than 10 000, the newest are found'),
  createdAfter: pastTime('then or later'),
  createdBefore: pastTime('earlier'),
})

const JobsQuery = z.strictObject({
  state: State.optional(),
  ...Filter.shape,
  ...PageQuery.shape,
})

const count = z.int().min(0).max(MAX_COUNTED)

const JobCounts = z
  .strictObject(Object.fromEntries(STATES.map((state) => [state, count])) as StateCounts)
  .describe(`Jobs that match by state, each counted up to ${MAX_COUNTED}`)
  .openapi('JobCounts')

export type JobCounts = z.infer<typeof JobCounts>

type StateCounts = Record<(typeof STATES)[number], typeof count>

const JobKinds = z
  .strictObject({
    items: z.array(
      z.strictObject({
        kind: z.string(),
        isHandled: z.boolean().describe('Whether this process has a handler for it'),
      }),
    ),
  })
  .openapi('JobKinds')

const JobQueue = z
  .strictObject({
    queue: z.string().openapi({ example: 'mail' }),
    isRun: z.boolean().describe('Whether any process runs its jobs'),
    pausedAt: time.nullable().describe('Null while it is not paused'),
    queued: z.int().min(0).describe(`Of each kind counted up to ${MAX_COUNTED}`),
    running: z.int().min(0),
  })
  .openapi('JobQueue')

const JobQueues = z.strictObject({ items: z.array(JobQueue) }).openapi('JobQueues')

export type JobQueues = z.infer<typeof JobQueues>

const QueueName = z.strictObject({ queue: z.string().regex(QUEUE, `must be ${QUEUE_FORM}`) })

const JobSchedule = z
  .strictObject({
    name: z.string(),
    kind: z.string(),
    cron: z.string().describe('Five fields, or six that begin with seconds'),
    timeZone: z.string().openapi({ example: 'Europe/Berlin' }),
    isPaused: z.boolean().describe('Whether its slots are left out'),
    lastRun: z
      .strictObject({
        slot: time.describe('Or when it was run by hand'),
        jobId: z.uuid().describe('An earlier one if that was unfinished'),
        state: State.nullable().describe('Null once the job was pruned'),
      })
      .nullable(),
    nextRun: time.nullable().describe('Null while it is paused'),
  })
  .openapi('JobSchedule')

export type JobSchedule = z.infer<typeof JobSchedule>

const JobSchedules = z.strictObject({ items: z.array(JobSchedule) }).openapi('JobSchedules')

const ScheduleName = z.strictObject({
  name: z.string().regex(NAME, NAME_RULE).openapi({ example: 'report.sweep' }),
})

const RetryFilter = z.strictObject({ state: z.enum(RETRYABLE), ...Filter.shape })
const CancelFilter = z.strictObject({ state: z.enum(UNFINISHED), ...Filter.shape })

const JobsChanged = z
  .strictObject({
    changed: z.int().min(0),
    more: z
      .boolean()
      .describe('Whether more match: a call changes up to 10 000, or what it can in 2 s'),
  })
  .openapi('JobsChanged')

/** The topic of the jobs of all processes. */
const JOBS = 'jobs'

const PUBLISH_EVERY_MS = 200
/** More than the live page shows. */
const MAX_JOBS = 20

const { id, kind, state, progress, note, attempt, error } = Job.shape

const jobChanged = event('job.changed', {
  topic: JOBS,
  when:
    'When jobs change, up to five times a second for each process that changes some. Those of ' +
    'different processes come in any order.',
  payload: z.object({
    jobs: z
      .array(z.object({ id, kind, state, progress, note, attempt, error }))
      .describe(`at most ${MAX_JOBS}, the one that changed last at the end`),
    more: z.boolean().describe('whether others changed, too: then read `GET /v1/jobs`'),
  }),
})

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
      const { limit, cursor, ...filter } = c.req.valid('query')
      const read = (before: string | undefined, limit: number) =>
        jobs.list(open(c), { ...filter, limit, before })
      return c.json(await pager.read({ limit, cursor }, read), 200)
    },
  })

  router.openapi({
    method: 'get',
    path: '/counts',
    operationId: 'countJobs',
    access: 'operate',
    summary: 'Count jobs by state',
    request: { query: Filter },
    responses: { 200: json(JobCounts, 'The counts') },
    handler: async (c) => c.json(await jobs.count(open(c), c.req.valid('query')), 200),
  })

  router.openapi({
    method: 'get',
    path: '/kinds',
    operationId: 'listJobKinds',
    access: 'operate',
    summary: 'List the kinds that have jobs, up to 200, or a handler',
    responses: { 200: json(JobKinds, 'The kinds') },
    handler: async (c) => c.json({ items: await jobs.kinds(open(c)) }, 200),
  })

  router.openapi({
    method: 'get',
    path: '/schedules',
    operationId: 'listJobSchedules',
    access: 'operate',
    summary: 'List the schedules with their last and next run',
    responses: { 200: json(JobSchedules, 'The schedules') },
    handler: async (c) => c.json({ items: await jobs.schedules(open(c)) }, 200),
  })

  router.openapi({
    method: 'get',
    path: '/queues',
    operationId: 'listJobQueues',
    access: 'operate',
    summary: 'List the queues with how many jobs wait and run',
    responses: { 200: json(JobQueues, 'The queues') },
    handler: async (c) => c.json({ items: await jobs.queues(open(c)) }, 200),
  })

  router.openapi({
    method: 'post',
    path: '/queues/{queue}/pause',
    operationId: 'pauseJobQueue',
    access: 'operate',
    summary: 'Let no process start jobs of a queue, within a second',
    request: { params: QueueName },
    responses: { 204: { description: 'Paused, now or before' } },
    handler: async (c) => {
      await jobs.pauseQueue(open(c), c.req.valid('param').queue)
      return c.body(null, 204)
    },
  })

  router.openapi({
    method: 'post',
    path: '/queues/{queue}/resume',
    operationId: 'resumeJobQueue',
    access: 'operate',
    summary: 'Start jobs of a paused queue again',
    request: { params: QueueName },
    responses: { 204: { description: 'Resumed, now or before' } },
    handler: async (c) => {
      await jobs.resumeQueue(open(c), c.req.valid('param').queue)
      return c.body(null, 204)
    },
  })

  router.openapi({
    method: 'post',
    path: '/schedules/{name}/run',
    operationId: 'runJobSchedule',
    access: 'operate',
    summary: "Enqueue a schedule's job now, paused or not",
    request: { params: ScheduleName },
    responses: { 202: json(Job, 'Enqueued, or the unfinished one of an earlier run') },
    handler: async (c) => {
      const { requestId, subject } = getContext(c)
      const by = { requestId, subject: subject?.id ?? null }
      const job = await jobs.runSchedule(open(c), c.req.valid('param').name, by)
      return c.json(toBrief(job), 202)
    },
  })

  router.openapi({
    method: 'post',
    path: '/schedules/{name}/pause',
    operationId: 'pauseJobSchedule',
    access: 'operate',
    summary: 'Leave out the slots of a schedule until it is resumed',
    request: { params: ScheduleName },
    responses: { 204: { description: 'Paused, now or before' } },
    handler: async (c) => {
      await jobs.pauseSchedule(open(c), c.req.valid('param').name)
      return c.body(null, 204)
    },
  })

  router.openapi({
    method: 'post',
    path: '/schedules/{name}/resume',
    operationId: 'resumeJobSchedule',
    access: 'operate',
    summary: 'Fire the slots of a schedule again, from the next one on',
    request: { params: ScheduleName },
    responses: { 204: { description: 'Resumed, now or before' } },
    handler: async (c) => {
      await jobs.resumeSchedule(open(c), c.req.valid('param').name)
      return c.body(null, 204)
    },
  })

  router.openapi({
    method: 'post',
    path: '/retry',
    operationId: 'retryJobs',
    access: 'operate',
    summary: 'Queue all failed, cancelled or parked jobs that match again, newest first',
    request: jsonBody(RetryFilter),
    responses: { 200: json(JobsChanged, 'Queued') },
    handler: async (c) => c.json(await jobs.retryAll(open(c), c.req.valid('json')), 200),
  })

  router.openapi({
    method: 'post',
    path: '/cancel',
    operationId: 'cancelJobs',
    access: 'operate',
    summary: 'Cancel all unfinished jobs that match, newest first',
    request: jsonBody(CancelFilter),
    responses: { 200: json(JobsChanged, 'Cancelled') },
    handler: async (c) => c.json(await jobs.cancelAll(open(c), c.req.valid('json')), 200),
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
    summary: 'Queue a failed, cancelled or parked job again, with all of its attempts',
    request: { params: JobId },
    responses: {
      202: json(Job, 'Queued'),
      409: { description: 'It is in another state' },
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
  const own = collectChanges((payload) => realtime.emitLatest(JOBS, jobChanged, payload))
  // The process that made them publishes them, too, unless Valkey fails.
  const noticed = collectChanges((payload) =>
    realtime.emitLatest(JOBS, jobChanged, payload, 'local'),
  )
  const unsubscribe = jobs.onChange((change, isOwn) => (isOwn ? own : noticed).add(change))
  return () => {
    unsubscribe()
    own.stop()
    noticed.stop()
  }
}

function collectChanges(publish: (payload: z.infer<typeof jobChanged.payload>) => void) {
  const latest = new Map<string, JobChange>()
  let more = false
  let timer: NodeJS.Timeout | undefined

  const flush = () => {
    timer = undefined
    publish({ jobs: [...latest.values()], more })
    latest.clear()
    more = false
  }

  return {
    add(change: JobChange) {
      // Deleted first, so that the job moves to the end.
      latest.delete(change.id)
      latest.set(change.id, change)
      timer ??= setTimeout(flush, PUBLISH_EVERY_MS).unref()
      if (latest.size <= MAX_JOBS) return
      more = true
      latest.delete(latest.keys().next().value as string)
    },
    stop: () => clearTimeout(timer),
  }
}
