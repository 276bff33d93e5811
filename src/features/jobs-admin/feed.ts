import { z } from '@hono/zod-openapi'
import type { JobChange } from '@offloop/jobs/job'
import type { Deps } from '../../feature.ts'
import { event } from '../../realtime/event.ts'
import { Job } from './schema.ts'

/** The topic of all jobs of the process that a client is connected to. */
export const JOBS = 'jobs'

const PUBLISH_EVERY_MS = 200
/** More than the live page shows. */
const MAX_JOBS = 20

const { id, kind, state, progress, note, attempt, error } = Job.shape

export const jobChanged = event('job.changed', {
  topic: JOBS,
  when: 'Up to five times a second, when jobs of the process that one is connected to change.',
  payload: z.object({
    jobs: z
      .array(z.object({ id, kind, state, progress, note, attempt, error }))
      .describe(`at most ${MAX_JOBS}, the one that changed last at the end`),
    more: z.boolean().describe('whether others changed, too: then read `GET /v1/jobs`'),
  }),
})

/**
 * Publishes the latest change of each job, up to a limit. Slow clients miss some and read the list.
 */
export function publishJobChanges({ jobs, realtime }: Pick<Deps, 'jobs' | 'realtime'>): () => void {
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
