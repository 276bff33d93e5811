import { z } from '@hono/zod-openapi'

// zod's own messages name its types and no remedy.
z.config({ customError: explain })

/** Text without lone surrogates, which UTF-8 cannot encode. */
export const text = () =>
  z
    .string()
    .refine(
      (value) => value.isWellFormed(),
      'Must not contain half of a surrogate pair, such as \\ud800',
    )

/** A whole number in a path or query. `z.coerce` would read '' as 0 and '1e3' as 1000. */
export const integerParameter = (min: number, max: number) =>
  parameter('integer', /^\d{1,15}$/, min, max)

export const numberParameter = (min: number, max: number) =>
  parameter('number', /^-?\d{1,20}(\.\d{1,40})?(e-?\d{1,3})?$/i, min, max)

const parameter = (type: 'integer' | 'number', form: RegExp, min: number, max: number) =>
  z
    .string()
    .refine((text) => form.test(text) && Number(text) >= min && Number(text) <= max, {
      message: `Must be a ${type === 'integer' ? 'whole number' : 'number'} from ${min} to ${max}`,
      abort: true,
    })
    .transform(Number)
    .openapi({ type, minimum: min, maximum: max })

/** zod-openapi does not see a default behind a transformation. */
export const withDefault = (parameter: ReturnType<typeof integerParameter>, value: number) =>
  parameter.default(value).openapi({ default: value })

const TYPES: Record<string, string> = {
  string: 'a string',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'an object',
  record: 'an object',
}

const FORMATS: Record<string, string> = {
  uuid: 'a UUID',
  datetime: 'a date and time such as 2026-11-28T05:00:00Z',
  date: 'a date such as 2026-11-28',
  email: 'an e-mail address',
  url: 'a URL',
}

const UNITS: Record<string, string> = { string: ' characters', array: ' items', set: ' items' }

function explain(issue: z.core.$ZodRawIssue): string | undefined {
  if (issue.input === undefined) return 'Required'
  if (issue.code === 'invalid_type')
    return `Must be ${TYPES[issue.expected] ?? `of the type ${issue.expected}`}`
  if (issue.code === 'invalid_format' && issue.format === 'regex')
    return `Must match ${issue.pattern}`
  if (issue.code === 'invalid_format') return `Must be ${FORMATS[issue.format] ?? issue.format}`
  if (issue.code === 'invalid_value')
    return `Must be ${issue.values.length > 1 ? 'one of ' : ''}${issue.values.join(', ')}`
  if (issue.code === 'too_small')
    return explainBound(issue, issue.inclusive === false ? 'more than' : 'at least', issue.minimum)
  if (issue.code === 'too_big')
    return explainBound(issue, issue.inclusive === false ? 'less than' : 'at most', issue.maximum)
  if (issue.code === 'not_multiple_of') return `Must be a multiple of ${issue.divisor}`
  if (issue.code === 'invalid_union') return 'Matches none of the allowed forms'
  if (issue.code === 'unrecognized_keys') return 'Unknown key'
  return undefined
}

const explainBound = ({ origin }: { origin: string }, comparison: string, bound: number | bigint) =>
  `Must ${UNITS[origin] ? 'have' : 'be'} ${comparison} ${bound}${UNITS[origin] ?? ''}`
