import { type ChildProcess, fork } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import type { Job } from '@offloop/jobs/job'
import { Jobs, type JobsOptions } from '@offloop/jobs/jobs'
import { pino } from 'pino'
import type { Database } from '../../src/db/database.ts'
import { afterCommit, transaction } from '../../src/db/transaction.ts'
import { end, nextMessage } from '../support/child.ts'

export const POOL_SIZE = 10
const KEEP_MS = 86_400_000
const ENQUEUE_BATCH = 500
const START_TIMEOUT_MS = 30_000

/** The jobs of this process, of which `concurrency` run at once. */
export const openJobs = (
  database: Database,
  concurrency: number,
  options: Partial<Pick<JobsOptions, 'log' | 'timing'>> = {},
) =>
  new Jobs({
    open: (signal, settings) => database.withSignal(signal, settings),
    transaction,
    afterCommit,
    log: pino({ level: 'silent' }),
    worker: randomUUID(),
    queues: { '*': concurrency },
    keepMs: KEEP_MS,
    ...options,
  })

export async function enqueueAll<Input>(
  database: Database,
  job: Job<Input, unknown>,
  inputs: readonly Input[],
): Promise<void> {
  await using jobs = openJobs(database, 0)
  for (let first = 0; first < inputs.length; first += ENQUEUE_BATCH)
    await transaction(database.withSignal(), async (trx) => {
      for (const input of inputs.slice(first, first + ENQUEUE_BATCH))
        await jobs.enqueue(trx, job, input)
    })
}

/** A process that runs jobs from its first message on, and sends how many it has done. */
export interface WorkerProcess extends AsyncDisposable {
  child: ChildProcess
}

export async function startWorker(
  databaseUrl: string,
  concurrency: number,
  timing: JobsOptions['timing'] = {},
): Promise<WorkerProcess> {
  const child = fork(join(import.meta.dirname, 'worker.ts'), {
    env: {
      PATH: process.env['PATH'],
      DATABASE_URL: databaseUrl,
      CONCURRENCY: String(concurrency),
      TIMING: JSON.stringify(timing),
    },
  })
  await nextMessage(child, START_TIMEOUT_MS)
  return { child, [Symbol.asyncDispose]: () => end(child) }
}
