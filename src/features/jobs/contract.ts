import type { JobChange } from '@offloop/jobs/job'
import { event } from '../../realtime/event.ts'

/** The topic of everything that happens to jobs in the process that a client is connected to. */
export const JOBS = 'jobs'

export type JobNews = Pick<JobChange, 'id' | 'kind' | 'state' | 'progress' | 'note' | 'attempt'>

export interface JobsChange {
  /** The newest of what there is to tell of each, the one that changed last at the end. */
  jobs: JobNews[]
  /** Whether more jobs changed than are told of. */
  more: boolean
}

export const jobChanged = event<JobsChange>()('job.changed', {
  topic: JOBS,
  when: 'Up to five times a second, when jobs of the process that the client is connected to have changed.',
  payload: {
    jobs: 'at most 20: `id`, `kind`, `state`, `progress`, `note`, `attempt`',
    more: 'whether others changed, too: then `GET /v1/jobs` tells',
  },
})
