import { transaction } from '../../../../src/db/transaction.ts'
import { Claims } from '../../claims.ts'
import { handle, type Job } from '../../job.ts'
import { type Claim, JobStore } from '../../store.ts'
import type { Db } from '../../tables.ts'

interface UseClaimsOptions {
  worker?: string
  leaseMs?: number
  pollMs?: number
  keepMs?: number
  onFailed?: () => void
}

/** Claims as one process makes them, without its loops. */
export function useClaims(
  db: Db,
  jobs: readonly Job<never, unknown>[],
  {
    worker = 'w',
    leaseMs = 30_000,
    pollMs = 500,
    keepMs = 60_000,
    onFailed,
  }: UseClaimsOptions = {},
) {
  const store = new JobStore({ open: () => db, transaction, keepMs })
  const handlers = new Map(
    jobs.map((job) => [
      job.name,
      handle(job as Job<unknown, unknown>, () => {}, { ...(onFailed && { onFailed }) }),
    ]),
  )
  const claims = new Claims({ store, worker, handlers, leaseMs, pollMs })
  return {
    store,
    claims,
    /** As many of the default queue, in one call. */
    claim: async (limit: number): Promise<Claim[]> =>
      (await claims.claim(new Map([['default', limit]]))).claims,
  }
}
