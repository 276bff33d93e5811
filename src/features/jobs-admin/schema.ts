import { z } from '@hono/zod-openapi'
import { NAME } from '@offloop/jobs/job'
import { PageQuery, pageFields } from '../../http/pagination.ts'

const State = z
  .enum(['scheduled', 'queued', 'running', 'succeeded', 'failed', 'cancelled'])
  .describe('`scheduled` jobs wait for their time or a retry; `failed` ones used up their attempts')

const time = z.iso.datetime()
const KIND_EXAMPLE = 'order.send-receipt'

export const Job = z
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

export const JobDetail = z
  .strictObject({
    ...Job.shape,
    input: z.unknown(),
    result: z.unknown(),
    attempts: z.array(Attempt),
    lastError: z.string().nullable().describe('The error of the last attempt that had one'),
  })
  .openapi('JobDetail')

export const JobPage = z.strictObject(pageFields(Job)).openapi('JobPage')

export const JobId = z.strictObject({ id: z.uuid().toLowerCase() })

export const JobsQuery = z.strictObject({
  state: State.optional(),
  kind: z
    .string()
    .regex(NAME, 'must be 1 to 100 ASCII characters without spaces')
    .optional()
    .openapi({ example: KIND_EXAMPLE }),
  ...PageQuery.shape,
})
