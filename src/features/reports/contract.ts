import { z } from '@hono/zod-openapi'
import { job } from '@offloop/jobs/job'
import { task } from '@offloop/workpool/task'
import { event } from '../../realtime/event.ts'

/**
 * Of the summary: a report of the same file takes the result of an earlier one only if it has this
 * version.
 */
export const SUMMARY_VERSION = 3

/** Longer texts are cut, and end in an ellipsis. */
export const MAX_TEXT_CHARACTERS = 200

/**
 * What is wanted besides a summary of each column: rows counted by one column, and another one
 * summed up.
 */
export interface Grouping {
  groupBy: string | null
  value: string | null
}

/** All that a summary depends on besides the file. */
export interface SummaryOptions extends Grouping {
  /** The delimiter that was asked for; null for the one that the file seems to have. */
  delimiter: string | null
}

export interface SummaryInput extends SummaryOptions {
  /** The upload, plain or gzip. */
  file: string
  /** An empty folder for what does not fit into memory. */
  folder: string
  memoryMb: number
}

export type ColumnType = 'integer' | 'number' | 'boolean' | 'date' | 'timestamp' | 'time' | 'text'

/**
 * Numbers for numbers, but text for those that a double cannot hold; ISO 8601 for dates and
 * timestamps, with a zone if the file has one; text for all others.
 */
export type Value = number | string | null

export interface ColumnSummary {
  name: string
  type: ColumnType
  /** How dates, timestamps and times are written in the file: `DD/MM/YYYY`. */
  format?: string
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
  /** As it is written in the file. */
  key: string | null
  count: number
  /** Exact, unless the column has exponents. */
  sum: Value
  mean: number | null
}

export interface Summary {
  version: number
  /** The character between the fields of a row. */
  delimiter: string
  rows: number
  columns: ColumnSummary[]
  /**
   * Rows that are in no other figure: how many, how many for each reason, and the first of them.
   */
  rejected: {
    rows: number
    reasons: Record<string, number>
    first: { line: number; column: string | null; reason: string; text: string }[]
  }
  /** The largest groups, and how many there are. */
  groups: (Grouping & { total: number; first: GroupSummary[] }) | null
}

/** What is wrong with the file is no error of ours: it is told in words for whoever sent it. */
export type SummaryOutcome = { ok: true; summary: Summary } | { ok: false; reason: string }

export const summariseCsv = task<SummaryInput, SummaryOutcome>('report.summarise')

const SMALL_BYTES = 1024 ** 2

/**
 * Reports of small uploads go before those of larger ones, and have a process that those do not
 * take.
 */
export const isSmall = (bytes: number) => bytes <= SMALL_BYTES

/**
 * The job's id is the report's. Its retries go on for some minutes, in which a full disk may be
 * emptied. Few at once bound the memory of a process with many cores, and leave places to other
 * jobs.
 */
export const buildReport = job<null, Summary>('report.build', {
  attempts: 6,
  backoffMs: 20_000,
  timeoutMs: 600_000,
  concurrency: 4,
})

/** Removes uploads that are a day old, and what killed processes left. */
export const sweepReports = job<null>('report.sweep')

/** The topic of one report. */
export const topicOf = (id: string) => `report:${id}`

export const REPORT_TOPIC = /^report:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

/** To users a report that waits for its next attempt is queued like any other. */
export const ReportState = z.enum(['queued', 'running', 'succeeded', 'failed', 'cancelled'])

export type ReportState = z.infer<typeof ReportState>

export const ReportProgress = z.object({
  id: z.uuid().describe('the report'),
  state: ReportState.describe('`queued` or `running`'),
  progress: z.number().describe('from 0 to 1'),
  note: z.string().nullable().describe('what it does, in words, or null'),
  attempt: z.int().describe('1 at the first time'),
})

export type ReportProgress = z.infer<typeof ReportProgress>

export const reportProgress = event('report.progress', {
  topic: topicOf('{id}'),
  when: 'While a report is made. A slow reader gets the latest only.',
  payload: ReportProgress,
})

export const reportFinished = event('report.finished', {
  topic: topicOf('{id}'),
  when: 'Once a report has come to its end.',
  payload: z.object({
    id: z.uuid().describe('the report'),
    state: ReportState.describe('`succeeded`, `failed` or `cancelled`'),
  }),
})
