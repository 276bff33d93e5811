import { z } from '@hono/zod-openapi'
import { job } from '@offloop/jobs/job'
import { task } from '@offloop/workpool/task'
import { pageFields } from '../../http/pagination.ts'
import { event } from '../../realtime/event.ts'

/** Raise it when summaries change: results of other versions are not reused. */
export const SUMMARY_VERSION = 4
/** Longer texts are cut and end in an ellipsis. */
export const MAX_TEXT_CHARACTERS = 200

/** Strings are texts, ISO 8601 dates, and numbers that a double cannot hold. */
const Value = z.union([z.number(), z.string()]).nullable()

const ColumnSummary = z.object({
  name: z.string(),
  type: z.enum(['integer', 'number', 'boolean', 'date', 'timestamp', 'time', 'text']),
  format: z
    .string()
    .optional()
    .describe('How dates and times are written in the file')
    .openapi({ example: 'DD/MM/YYYY' }),
  nulls: z.int().describe('Fields that are empty'),
  distinct: z.int().describe('How many different values there are; see `approximate`'),
  min: Value,
  max: Value,
  mean: Value.optional(),
  standardDeviation: z.number().nullable().optional().describe('Of the sample'),
  quantiles: z
    .record(z.string(), Value)
    .optional()
    .describe('By share: `0.5` is the median; see `approximate`'),
  histogram: z
    .array(z.object({ from: Value, to: Value, count: z.int() }))
    .optional()
    .describe('Of numbers and dates: 20 bins of equal width'),
  top: z
    .array(z.object({ value: z.string(), count: z.int() }))
    .optional()
    .describe('Of all others: the 10 most frequent values'),
})

const Group = z.object({
  key: z.string().nullable(),
  count: z.int(),
  sum: Value,
  mean: z.number().nullable(),
})

const RejectedRow = z.object({
  line: z.int(),
  column: z.string().nullable(),
  reason: z.string(),
  text: z.string(),
})

const Summary = z
  .object({
    version: z.int(),
    delimiter: z.string().describe('The character between the fields of a row'),
    rows: z.int(),
    approximate: z
      .boolean()
      .describe('Whether `distinct` and `quantiles` are estimates: beyond a million rows'),
    columns: z.array(ColumnSummary),
    rejected: z
      .object({
        rows: z.int(),
        reasons: z.record(z.string(), z.int()).describe('How many rows for each reason'),
        first: z.array(RejectedRow),
      })
      .describe('Rows that are in no other figure, and the first 20 of them'),
    groups: z
      .object({
        groupBy: z.string(),
        value: z.string().nullable(),
        total: z.int().describe('How many groups there are'),
        first: z.array(Group).describe('By size, the largest 1 000'),
      })
      .nullable(),
  })
  .openapi('ReportSummary')

export type ColumnSummary = z.infer<typeof ColumnSummary>
export type Summary = z.infer<typeof Summary>

/** `queued` also while it waits for a retry. */
const ReportState = z.enum(['queued', 'running', 'succeeded', 'failed', 'cancelled'])

const ReportBrief = z
  .object({
    id: z.uuid(),
    state: ReportState,
    progress: z.number().min(0).max(1),
    note: z.string().nullable(),
    attempt: z.int(),
    error: z.string().nullable().describe('Why it failed, in words for people'),
    bytes: z.int(),
    sha256: z.string(),
    groupBy: z.string().nullable(),
    value: z.string().nullable(),
    delimiter: z.string().nullable().describe('The one that was requested'),
    createdAt: z.iso.datetime(),
    startedAt: z.iso.datetime().nullable(),
    finishedAt: z.iso.datetime().nullable(),
  })
  .openapi('ReportBrief')

export const Report = z
  .object({
    ...ReportBrief.shape,
    result: Summary.optional().describe('Once it has succeeded'),
  })
  .openapi('Report')

export type Report = z.infer<typeof Report>

export const ReportPage = z.object(pageFields(ReportBrief)).openapi('ReportPage')

/** What a summary depends on besides the file. */
export interface SummaryOptions {
  /** The column to count rows by. */
  groupBy: string | null
  /** The column to sum. */
  value: string | null
  /** Null to detect it. */
  delimiter: string | null
}

interface SummaryInput extends SummaryOptions {
  file: string
  /** For temporary files. */
  folder: string
  memoryMb: number
}

/** An invalid file is an expected outcome. */
export type SummaryOutcome = { ok: true; summary: Summary } | { ok: false; reason: string }

export const summariseCsv = task<SummaryInput, SummaryOutcome>('report.summarise')

/** Small uploads go first, and one process is kept for them. */
export const isSmall = (bytes: number) => bytes <= 1024 ** 2

/**
 * The job's id is the report's. Retries leave minutes to empty a full disk; its queue bounds memory
 * and leaves other jobs their places.
 */
export const buildReport = job<null, Summary>('report.build', {
  attempts: 6,
  backoffMs: 20_000,
  timeoutMs: 600_000,
  queue: 'reports',
})

export const REPORT_TOPIC = /^report:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

export const toTopic = (id: string) => `report:${id}`

export const toReportId = (topic: string) => topic.slice(toTopic('').length)

export const reportProgress = event('report.progress', {
  topic: toTopic('{id}'),
  when: 'While a report is made. A slow reader gets the latest only.',
  payload: z.object({
    id: z.uuid().describe('the report'),
    state: ReportState.describe('`queued` or `running`'),
    progress: z.number().describe('from 0 to 1'),
    note: z.string().nullable().describe('what it does, in words, or null'),
    attempt: z.int().describe('1 at the first time'),
  }),
})

export const reportFinished = event('report.finished', {
  topic: toTopic('{id}'),
  when: 'Once a report has finished.',
  payload: z.object({
    id: z.uuid().describe('the report'),
    state: ReportState.describe('`succeeded`, `failed` or `cancelled`'),
  }),
})
