import type { Selectable } from 'kysely'
import type { AttemptOutcome, JobState, Tables } from '../db/tables.ts'

/** A job as others may see it. */
export interface JobRecord {
  id: string
  kind: string
  state: JobState
  priority: number
  /** How often it was begun, this time included. */
  attempt: number
  maxAttempts: number
  progress: number
  note: string | null
  requestId: string | null
  input: unknown
  result: unknown
  /** What people may see of the last failure. */
  error: string | null
  createdAt: Date
  /** When a scheduled one is to be queued. */
  runAt: Date | null
  startedAt: Date | null
  finishedAt: Date | null
}

/** One time that it was begun. */
export interface AttemptRecord {
  attempt: number
  worker: string
  startedAt: Date
  finishedAt: Date | null
  /** Null while it goes on. */
  outcome: AttemptOutcome | null
  /** What went wrong, for operators. */
  error: string | null
}

/** News of a job: what this process wrote of it, or saw. */
export type JobChange = Pick<JobRecord, 'id' | 'kind' | 'state' | 'progress' | 'note' | 'attempt' | 'error'>

/** A job that a worker holds, for as long as the row has this fence. */
export interface Claim {
  id: string
  kind: string
  fence: number
  attempt: number
  maxAttempts: number
  requestId: string | null
  input: string
}

/** How an attempt ended, and what becomes of the job. */
export type Outcome =
  | { state: 'succeeded'; result: string }
  | { state: 'failed'; error: string; detail: string }
  | { state: 'scheduled'; error: string; detail: string; delayMs: number }
  /** Given back by a process that stops. */
  | { state: 'queued' }

export interface Settlement {
  claim: Claim
  outcome: Outcome
}

export const FINISHED = ['succeeded', 'failed', 'cancelled'] as const satisfies JobState[]

export const isFinished = (state: JobState) => (FINISHED as readonly JobState[]).includes(state)

export const CHANGE_COLUMNS = ['id', 'kind', 'state', 'progress', 'note', 'attempt', 'error'] as const

export const toRecord = (row: Selectable<Tables['job']>): JobRecord => ({
  id: row.id,
  kind: row.kind,
  state: row.state,
  priority: row.priority,
  attempt: row.attempt,
  maxAttempts: row.max_attempts,
  progress: row.progress,
  note: row.note,
  requestId: row.request_id,
  input: JSON.parse(row.input),
  result: row.result === null ? null : JSON.parse(row.result),
  error: row.error,
  createdAt: row.created_at,
  runAt: row.state === 'scheduled' ? row.due_at : null,
  startedAt: row.started_at,
  finishedAt: row.finished_at,
})

export const toChange = ({ id, kind, state, progress, note, attempt, error }: JobChange): JobChange => ({
  id,
  kind,
  state,
  progress,
  note,
  attempt,
  error,
})
