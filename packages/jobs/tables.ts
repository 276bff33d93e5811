import type { Generated, GeneratedAlways } from 'kysely'

/** The tables of jobs, as the migration `jobs` creates them. */
export interface JobTables {
  job: JobTable
  job_attempt: JobAttemptTable
  job_slot: JobSlotTable
}

export type JobState = 'scheduled' | 'queued' | 'running' | 'succeeded' | 'failed' | 'cancelled'

interface JobTable {
  id: string
  kind: string
  state: JobState
  /** Smaller ones go first. */
  priority: number
  /**
   * When a scheduled job is to be queued, the lease of a running one ends, a finished one is to be
   * pruned.
   */
  due_at: Date | null
  attempt: Generated<number>
  max_attempts: number
  fence: Generated<number>
  worker: string | null
  dedupe_key: string | null
  request_id: string | null
  /** JSON, as are results. */
  input: string
  result: string | null
  /** What people may see of the last failure. */
  error: string | null
  progress: Generated<number>
  note: string | null
  created_at: GeneratedAlways<Date>
  started_at: Date | null
  finished_at: Date | null
}

export type AttemptOutcome = 'succeeded' | 'failed' | 'cancelled' | 'lost' | 'released'

interface JobAttemptTable {
  job_id: string
  fence: number
  attempt: number
  worker: string
  started_at: GeneratedAlways<Date>
  finished_at: Date | null
  outcome: AttemptOutcome | null
  /** What went wrong, for operators. */
  error: string | null
}

interface JobSlotTable {
  schedule: string
  slot: Date
}
