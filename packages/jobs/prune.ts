import type { Db } from '../../src/db/database.ts'
import { handle, type JobRegistry, job, schedule } from './job.ts'
import { pruneSlots } from './schedules.ts'
import type { JobStore } from './store.ts'

const pruneJobs = job<null>('jobs.prune')

/** What jobs do for themselves, as jobs: every hour those that were kept for long enough go. */
export const pruneRegistry = (store: JobStore, open: () => Db): JobRegistry => ({
  handlers: [
    handle(pruneJobs, async (_, { signal }) => {
      while (!signal.aborted && (await store.prune()) > 0);
      await pruneSlots(open, signal)
    }),
  ],
  schedules: [schedule('jobs.prune', '17 * * * *', pruneJobs, null)],
})
