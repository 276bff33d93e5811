import type { Selectable } from 'kysely'
import type { Tables } from '../../src/db/tables.ts'
import { CHANGE_COLUMNS, FINISHED, type JobChange } from './job.ts'
import type { AttemptOutcome, JobState } from './tables.ts'

/** A job as others may see it, without what may be large. */
export interface JobBrief extends JobChange {
  priority: number
  maxAttempts: number
  requestId: string | null
  createdAt: Date
  /** When a scheduled one is to be queued. */
  runAt: Date | null
  startedAt: Date | null
  finishedAt: Date | null
}

/** All of it. */
export interface JobRecord extends JobBrief {
  input: unknown
  result: unknown
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

const UNFINISHED = ['scheduled', 'queued', 'running'] as const satisfies JobState[]

export const STATES = [...UNFINISHED, ...FINISHED]

type JobRow = Selectable<Tables['job']>

export const toRecord = (row: JobRow): JobRecord => ({
  ...toBrief(row),
  input: JSON.parse(row.input),
  result: row.result === null ? null : JSON.parse(row.result),
})

export const BRIEF_COLUMNS = [
  ...CHANGE_COLUMNS,
  'priority',
  'max_attempts',
  'request_id',
  'due_at',
  'created_at',
  'started_at',
  'finished_at',
] as const

export const toBrief = (row: Pick<JobRow, (typeof BRIEF_COLUMNS)[number]>): JobBrief => ({
  id: row.id,
  kind: row.kind,
  state: row.state,
  priority: row.priority,
  attempt: row.attempt,
  maxAttempts: row.max_attempts,
  progress: row.progress,
  note: row.note,
  requestId: row.request_id,
  error: row.error,
  createdAt: row.created_at,
  runAt: row.state === 'scheduled' ? row.due_at : null,
  startedAt: row.started_at,
  finishedAt: row.finished_at,
})

export const toChange = ({
  id,
  kind,
  state,
  progress,
  note,
  attempt,
  error,
}: JobChange): JobChange => ({
  id,
  kind,
  state,
  progress,
  note,
  attempt,
  error,
})
