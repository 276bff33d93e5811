import type { Generated, GeneratedAlways, Kysely, Transaction } from 'kysely'

/** The app's own `Tables` extends it. */
export interface JobTables {
  job: JobTable
  job_attempt: AttemptTable
  job_slot: { schedule: string; slot: Date; job_id: string | null }
  job_queue_state: { queue: string; run_at: Date | null; paused_at: Date | null }
  job_limit: LimitTable
  job_kind: { kind: string; handled_at: Date }
  job_schedule: { schedule: string; is_paused: boolean; resumed_at: Date | null }
}

// biome-ignore lint/suspicious/noExplicitAny: the tables of the app are not known here.
export type Db = Kysely<any>
// biome-ignore lint/suspicious/noExplicitAny: the same.
export type Trx = Transaction<any>

export const typed = (db: Db): Kysely<JobTables> => db

export type JobState =
  | 'scheduled'
  | 'queued'
  | 'running'
  | 'parked'
  | 'succeeded'
  | 'failed'
  | 'cancelled'

interface JobTable {
  id: string
  kind: string
  /** Its kind's when it was enqueued. */
  queue: Generated<string>
  /** By which jobs of a kind take turns. */
  limit_key: Generated<string>
  state: JobState
  priority: number
  /**
   * When a scheduled job is promoted, a running one's lease expires, a finished one is pruned;
   * since when a queued one waits, if not since its creation.
   */
  due_at: Date | null
  attempt: Generated<number>
  max_attempts: number
  /** The fencing token: counts the claims. */
  fence: Generated<number>
  worker: string | null
  dedupe_key: string | null
  /** Whether its handler has an `onFailed`. */
  on_failed: Generated<number>
  request_id: string | null
  subject: string | null
  trace: string | null
  input: string
  result: string | null
  error: string | null
  progress: Generated<number>
  note: string | null
  created_at: GeneratedAlways<Date>
  started_at: Date | null
  finished_at: Date | null
}

/** Locked by claims within limits. */
interface LimitTable {
  kind: string
  /** Of the last turn. */
  last_key: Generated<string>
  /** In JSON. */
  starts: Generated<string>
}

export type AttemptOutcome = 'succeeded' | 'failed' | 'cancelled' | 'lost' | 'released'

interface AttemptTable {
  job_id: string
  fence: number
  attempt: number
  worker: string
  started_at: GeneratedAlways<Date>
  finished_at: Date | null
  outcome: AttemptOutcome | null
  error: string | null
}
