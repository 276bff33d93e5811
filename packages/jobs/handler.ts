import { checkName, type Job } from './job.ts'

/** What a handler is given besides its input. */
export interface JobContext {
  id: string
  /**
   * Aborts when the job is cancelled, its time is up, the process stops, or another process has
   * taken the job over.
   */
  signal: AbortSignal
  /**
   * Says how far it is, from 0 to 1, as often as it likes: the newest value is written a few times
   * a second.
   */
  progress(fraction: number, note?: string): void
  /** Of the request that enqueued it. */
  requestId: string | null
  /** 1 at the first time. */
  attempt: number
}

/** A job and what does it; without its types, so that all of them fit one registry. */
export interface JobHandler {
  job: Job<never, unknown>
  run: (input: unknown, context: JobContext) => unknown
}

/** Fires a job at every slot of a cron expression, in UTC, however many processes there are. */
export interface JobSchedule {
  /** Names it in the database: under another name it is another schedule. */
  name: string
  cron: string
  job: Job<never, unknown>
  input: unknown
}

/** What a feature registers: its jobs' handlers, and what is to happen by the clock. */
export interface JobRegistry {
  handlers: JobHandler[]
  schedules: JobSchedule[]
}

/**
 * Says how a job is done. It may be done more than once: when a process dies after the work and
 * before the row says so, another does it again.
 */
export const handle = <Input, Result>(
  job: Job<Input, Result>,
  run: (input: Input, context: JobContext) => Result | Promise<Result>,
): JobHandler => ({ job, run: run as JobHandler['run'] })

/**
 * `schedule('reports.sweep', '0 3 * * *', sweepReports, {})`: every day at 03:00 UTC. It is left
 * out while the job of an earlier slot still waits or runs.
 *
 * @throws TypeError for a name that is not 1 to 100 ASCII characters without spaces.
 */
export function schedule<Input>(
  name: string,
  cron: string,
  job: Job<Input, unknown>,
  input: Input,
): JobSchedule {
  checkName('a schedule', name)
  return { name, cron, job, input }
}
