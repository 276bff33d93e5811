import { z } from '@hono/zod-openapi'
import { pageFields, pageQuery } from '../../http/pagination.ts'
import { ReportState } from './contract.ts'
import { DELIMITER } from './dialect.ts'

const ColumnName = z.string().min(1).max(200)
/** A number that a double cannot hold is a string. */
const Value = z.union([z.number(), z.string()]).nullable()

export const NewReportQuery = z
  .strictObject({
    groupBy: ColumnName.optional().openapi({
      description: 'The column to count rows by',
      example: 'region',
    }),
    value: ColumnName.optional().openapi({
      description: 'The column of numbers to sum up in each group',
      example: 'total',
    }),
    delimiter: z
      .string()
      .regex(DELIMITER, 'One character of ASCII that is no letter, digit or quote, or `tab`')
      .transform((delimiter) => (delimiter === 'tab' ? '\t' : delimiter))
      .optional()
      .openapi({
        description: `The character between the fields of a row, or \`tab\`. If absent, the file says it (\`sep=;\`), or it is
          whichever of \`, ; tab |\` divides the most rows like the header`,
        example: ';',
      }),
  })
  .refine(({ groupBy, value }) => value === undefined || groupBy !== undefined, {
    path: ['value'],
    message: 'Give groupBy, too: the column to sum up by',
  })

export const NewReportHeaders = z.object({
  'idempotency-key': z
    .string()
    .regex(/^[\x21-\x7e]{1,200}$/, 'At most 200 characters of ASCII, without spaces')
    .optional()
    .openapi({ description: 'A repeat with the same key is answered with the first report' }),
  'content-encoding': z.string().optional().openapi({ description: '`gzip`, if it is' }),
})

export const ReportId = z.strictObject({
  id: z.uuid().toLowerCase().openapi({ example: '01981c5e-5f0a-7c4e-9a54-6b1d5b0d8a11' }),
})

export const ReportQuery = z.strictObject({
  format: z
    .enum(['json', 'csv'])
    .default('json')
    .openapi({ description: '`csv`: the groups alone' }),
})

export const PageQuery = z.strictObject(pageQuery)

const Column = z.object({
  name: z.string(),
  type: z.enum(['integer', 'number', 'boolean', 'date', 'timestamp', 'time', 'text']),
  format: z.string().optional().openapi({
    description: 'How dates and times are written in the file; as values they are ISO 8601',
    example: 'DD/MM/YYYY',
  }),
  nulls: z.int().openapi({ description: 'Fields that are empty' }),
  distinct: z.int().openapi({
    description: 'Approximate in files of more than a million rows, and so are the quantiles',
  }),
  min: Value,
  max: Value,
  mean: Value.optional(),
  standardDeviation: z.number().nullable().optional().openapi({ description: 'Of the sample' }),
  quantiles: z
    .record(z.string(), Value)
    .optional()
    .openapi({ description: 'By their share: `0.5` is the median' }),
  histogram: z
    .array(z.object({ from: Value, to: Value, count: z.int() }))
    .optional()
    .openapi({ description: 'Of numbers and dates: 20 bins of equal width' }),
  top: z
    .array(z.object({ value: z.string(), count: z.int() }))
    .optional()
    .openapi({ description: 'Of all others: the 10 most frequent values' }),
})

const Groups = z.object({
  groupBy: z.string(),
  value: z.string().nullable(),
  total: z.int().openapi({ description: 'How many groups there are' }),
  first: z
    .array(
      z.object({
        key: z.string().nullable(),
        count: z.int(),
        sum: Value,
        mean: z.number().nullable(),
      }),
    )
    .openapi({ description: 'By size, the largest 1 000' }),
})

const Summary = z
  .object({
    delimiter: z.string().openapi({ description: 'The character between the fields of a row' }),
    rows: z.int(),
    columns: z.array(Column),
    rejected: z
      .object({
        rows: z.int(),
        reasons: z
          .record(z.string(), z.int())
          .openapi({ description: 'How many rows for each reason' }),
        first: z.array(
          z.object({
            line: z.int(),
            column: z.string().nullable(),
            reason: z.string(),
            text: z.string(),
          }),
        ),
      })
      .openapi({ description: 'Rows that are in no other figure, and the first 20 of them' }),
    groups: Groups.nullable(),
  })
  .openapi('ReportSummary')

const brief = {
  id: z.uuid(),
  state: ReportState,
  progress: z.number().min(0).max(1),
  note: z.string().nullable(),
  attempt: z.int(),
  error: z.string().nullable().openapi({ description: 'Why it failed, in words for people' }),
  bytes: z.int(),
  sha256: z.string(),
  groupBy: z.string().nullable(),
  value: z.string().nullable(),
  delimiter: z.string().nullable().openapi({ description: 'The one that was asked for' }),
  createdAt: z.iso.datetime(),
  startedAt: z.iso.datetime().nullable(),
  finishedAt: z.iso.datetime().nullable(),
}

export const ReportBrief = z.object(brief).openapi('ReportBrief')

export const Report = z
  .object({
    ...brief,
    result: Summary.optional().openapi({ description: 'Once it has succeeded' }),
  })
  .openapi('Report')

export const ReportPage = z.object(pageFields(ReportBrief)).openapi('ReportPage')

export type ReportBrief = z.infer<typeof ReportBrief>
export type Report = z.infer<typeof Report>
export type ReportPage = z.infer<typeof ReportPage>
