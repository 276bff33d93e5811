import type { EnqueueOptions } from '@offloop/jobs/enqueue-options'
import type { Job, JobChange, JobHandler, JobSchedule } from '@offloop/jobs/job'
import { Jobs, type JobsOptions } from '@offloop/jobs/jobs'
import { pino } from 'pino'
import { onTestFinished } from 'vitest'
import type { Database } from '../../src/db/database.ts'
import { transaction } from '../../src/db/transaction.ts'

const DAY_MS = 86_400_000

interface UseJobsOptions extends Partial<Omit<JobsOptions, 'database'>> {
  handlers?: JobHandler[]
  schedules?: JobSchedule[]
}

/**
 * Jobs as one process has them, stopped when the test ends; two on one database are as good as two
 * processes.
 */
export function useJobs(
  database: Database,
  { handlers = [], schedules = [], ...options }: UseJobsOptions = {},
) {
  const jobs = new Jobs({
    database,
    log: pino({ level: 'silent' }),
    concurrency: 5,
    keepMs: 7 * DAY_MS,
    ...options,
  })
  const changes: JobChange[] = []
  jobs.onChange((change) => changes.push(change))
  onTestFinished(() => jobs.stop())
  jobs.start({ handlers, schedules })
  return {
    jobs,
    changes,
    statesOf: (id: string) =>
      changes.filter((change) => change.id === id).map(({ state }) => state),
  }
}

/** Enqueues in a transaction of its own. */
export const enqueue = <Input>(
  { database, jobs }: { database: Database; jobs: Jobs },
  job: Job<Input, unknown>,
  input: Input,
  options?: EnqueueOptions,
) => transaction(database.withSignal(), (trx) => jobs.enqueue(trx, job, input, options))
