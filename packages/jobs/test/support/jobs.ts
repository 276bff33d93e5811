import { randomUUID } from 'node:crypto'
import { pino } from 'pino'
import { onTestFinished } from 'vitest'
import type { Database } from '../../../../src/db/database.ts'
import { afterCommit, transaction } from '../../../../src/db/transaction.ts'
import type { EnqueueOptions } from '../../enqueue.ts'
import type { Job, JobChange, JobHandler, JobSchedule } from '../../job.ts'
import { Jobs, type JobsOptions } from '../../jobs.ts'

const DAY_MS = 86_400_000

interface UseJobsOptions extends Partial<JobsOptions> {
  /** How many jobs run at once, 5 by default, if there are no `queues`. */
  concurrency?: number
  handlers?: JobHandler[]
  schedules?: JobSchedule[]
}

/** How jobs reach a database of the service's. */
export const access = (
  database: Database,
): Pick<JobsOptions, 'open' | 'transaction' | 'afterCommit'> => ({
  open: (signal, options) => database.withSignal(signal, options),
  transaction,
  afterCommit,
})

/**
 * Jobs as one process has them, stopped when the test ends; two on one database are as good as two
 * processes.
 */
export function useJobs(
  database: Database,
  { handlers = [], schedules = [], concurrency = 5, ...options }: UseJobsOptions = {},
) {
  const jobs = new Jobs({
    ...access(database),
    log: pino({ level: 'silent' }),
    worker: randomUUID(),
    queues: { '*': concurrency },
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
