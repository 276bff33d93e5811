import type { JobState } from '../../db/tables.ts'
import { event, job, task } from '../../names.ts'

/** Of the summary: a report of the same file takes the result of an earlier one only if it has this version. */
export const SUMMARY_VERSION = 1

/** What is wanted besides a summary of each column: rows counted by one column, and another one summed up. */
export interface Grouping {
  groupBy: string | null
  value: string | null
}

export interface SummaryInput extends Grouping {
  /** The upload, plain or gzip. */
  file: string
  /** An empty folder for what does not fit into memory. */
  folder: string
  memoryMb: number
  /** Set to 1 when the task has let go of its folder. */
  closed: Int32Array<SharedArrayBuffer>
}

export type ColumnType = 'integer' | 'number' | 'boolean' | 'date' | 'timestamp' | 'time' | 'text'

/** Numbers for numbers, ISO 8601 for dates and timestamps, text for all others. */
export type Value = number | string | null

export interface ColumnSummary {
  name: string
  type: ColumnType
  nulls: number
  /** Approximate in files of more than a million rows, and so are the quantiles. */
  distinct: number
  min: Value
  max: Value
  /** For numbers, dates and timestamps, as are the quantiles and the histogram. */
  mean?: Value
  /** Of the sample; for numbers. */
  standardDeviation?: number | null
  /** By their share: `0.5` is the median. */
  quantiles?: Record<string, Value>
  /** Bins of equal width, `to` excluded but for the last one. */
  histogram?: { from: Value; to: Value; count: number }[]
  /** The most frequent values of all other types. */
  top?: { value: string; count: number }[]
}

export interface GroupSummary {
  key: string | null
  count: number
  sum: number | null
  mean: number | null
}

export interface Summary {
  version: number
  rows: number
  columns: ColumnSummary[]
  /** Rows that do not parse: how many, and the first of them. */
  rejected: { rows: number; first: { line: number; column: string | null; reason: string; text: string }[] }
  /** The largest groups, and how many there are. */
  groups: (Grouping & { total: number; first: GroupSummary[] }) | null
}

/** What is wrong with the file is no error of ours: it is told in words for whoever sent it. */
export type SummaryOutcome = { ok: true; summary: Summary } | { ok: false; reason: string }

export const summariseCsv = task<SummaryInput, SummaryOutcome>('report.summarise')

/** The job's id is the report's. */
export const buildReport = job<null, Summary>('report.build', { attempts: 3, timeoutMs: 1_800_000 })

/** Removes uploads that are a day old, and what killed processes left. */
export const sweepReports = job<null>('report.sweep')

/** The topic of one report. */
export const topicOf = (id: string) => `report:${id}`

export const REPORT_TOPIC = /^report:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

/** To users a report that waits for its next attempt is queued like any other. */
export type ReportState = Exclude<JobState, 'scheduled'>

export interface ReportProgress {
  id: string
  state: ReportState
  progress: number
  note: string | null
  attempt: number
}

export const reportProgress = event<ReportProgress>()('report.progress', {
  topic: topicOf('{id}'),
  when: 'While a report is made. A slow reader gets the latest only.',
  payload: {
    id: 'the report',
    state: '`queued` or `running`',
    progress: 'from 0 to 1',
    note: 'what it does, in words, or null',
    attempt: '1 at the first time',
  },
})

export const reportFinished = event<{ id: string; state: ReportState }>()('report.finished', {
  topic: topicOf('{id}'),
  when: 'Once a report has come to its end.',
  payload: { id: 'the report', state: '`succeeded`, `failed` or `cancelled`' },
})
