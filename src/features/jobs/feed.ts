import type { JobChange } from '@offloop/jobs/job'
import { toChange } from '@offloop/jobs/record'
import type { Deps } from '../../feature.ts'
import { JOBS, type JobUpdate, jobChanged } from './contract.ts'

const SEND_EVERY_MS = 200
/** As many as a page shows. The others are only counted in. */
const MAX_TOLD = 20

/**
 * Tells subscribers which jobs changed, five times a second at the most: of each the newest, and of
 * a storm the last few. Who reads slowly misses some, and reads the list instead. Returns the
 * function that ends it.
 */
export function publishJobChanges({ jobs, realtime }: Pick<Deps, 'jobs' | 'realtime'>): () => void {
  const told = new Map<string, JobChange>()
  let more = false
  let timer: NodeJS.Timeout | undefined

  const send = () => {
    timer = undefined
    realtime.emitLatest(JOBS, jobChanged, { jobs: [...told.values()].map(toNews), more })
    told.clear()
    more = false
  }

  const stopListening = jobs.onChange((change) => {
    // Out and in again, so that the one that changed last is at the end.
    told.delete(change.id)
    told.set(change.id, change)
    timer ??= setTimeout(send, SEND_EVERY_MS).unref()
    if (told.size <= MAX_TOLD) return
    more = true
    told.delete(told.keys().next().value as string)
  })

  return () => {
    stopListening()
    clearTimeout(timer)
  }
}

/** Only what a change consists of: some are whole records. */
function toNews(change: JobChange): JobUpdate {
  const { error: _, ...news } = toChange(change)
  return news
}
