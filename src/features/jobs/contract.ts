import { z } from '@hono/zod-openapi'
import { event } from '../../realtime/event.ts'
import { Job } from './schema.ts'

/** The topic of everything that happens to jobs in the process that a client is connected to. */
export const JOBS = 'jobs'

const JobUpdate = Job.pick({
  id: true,
  kind: true,
  state: true,
  progress: true,
  note: true,
  attempt: true,
})

export type JobUpdate = z.infer<typeof JobUpdate>

export const JobsChange = z.object({
  jobs: z
    .array(JobUpdate)
    .describe('at most 20: `id`, `kind`, `state`, `progress`, `note`, `attempt`'),
  more: z.boolean().describe('whether others changed, too: then read `GET /v1/jobs`'),
})

export type JobsChange = z.infer<typeof JobsChange>

export const jobChanged = event('job.changed', {
  topic: JOBS,
  when: 'Up to five times a second, when jobs of the process that the client is connected to have changed.',
  payload: JobsChange,
})
