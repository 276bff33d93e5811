import { z } from '@hono/zod-openapi'
import { NAME } from '@offloop/jobs/job'
import { pageFields, pageQuery } from '../../http/pagination.ts'

const State = z
  .enum(['scheduled', 'queued', 'running', 'succeeded', 'failed', 'cancelled'])
  .openapi({
    description:
      '`scheduled` jobs wait for their time, or to be tried again; a `failed` one used up its attempts',
  })
const KIND_EXAMPLE = 'report.build'

export const Job = z
  .strictObject({
    id: z.uuid(),
    kind: z.string().openapi({ example: KIND_EXAMPLE }),
    state: State,
    priority: z.int().openapi({ description: 'Smaller ones go first' }),
    attempt: z.int().openapi({ description: 'How often it was begun' }),
    maxAttempts: z.int(),
    progress: z.number().min(0).max(1),
    note: z.string().nullable(),
    requestId: z.string().nullable().openapi({ description: 'Of the request that enqueued it' }),
    error: z
      .string()
      .nullable()
      .openapi({ description: 'What people may see of the last failure' }),
    createdAt: z.iso.datetime(),
    runAt: z.iso
      .datetime()
      .nullable()
      .openapi({ description: 'When a scheduled one is to be queued' }),
    startedAt: z.iso.datetime().nullable(),
    finishedAt: z.iso.datetime().nullable(),
  })
  .openapi('Job')

const Attempt = z
  .strictObject({
    attempt: z.int(),
    worker: z.string().openapi({
      description: 'Host, process and a name of its own',
      example: 'web-1:42:9f2c01ab',
    }),
    startedAt: z.iso.datetime(),
    finishedAt: z.iso.datetime().nullable(),
    outcome: z.enum(['succeeded', 'failed', 'cancelled', 'lost', 'released']).nullable().openapi({
      description: '`lost` with its process, `released` by one that stopped; null while it goes on',
    }),
    error: z.string().nullable().openapi({ description: 'What went wrong' }),
  })
  .openapi('JobAttempt')

export const JobDetail = z
  .strictObject({
    ...Job.shape,
    input: z.unknown(),
    result: z.unknown(),
    attempts: z.array(Attempt),
    lastError: z.string().nullable().openapi({ description: 'What went wrong the last time' }),
  })
  .openapi('JobDetail')

export const JobPage = z.strictObject(pageFields(Job)).openapi('JobPage')

export const JobId = z.strictObject({ id: z.uuid().toLowerCase() })

export const PageQuery = z.strictObject({
  state: State.optional(),
  kind: z
    .string()
    .regex(NAME, 'must be 1 to 100 ASCII characters without spaces')
    .optional()
    .openapi({ example: KIND_EXAMPLE }),
  ...pageQuery,
})

export type Job = z.infer<typeof Job>
export type JobDetail = z.infer<typeof JobDetail>
export type JobPage = z.infer<typeof JobPage>
export type PageQuery = z.infer<typeof PageQuery>
