import { AppError } from '../../errors.ts'
import type { GroupSummary } from './contract.ts'
import type { Report } from './schema.ts'

const NUMBER = /^-?\d+(\.\d+)?(e[+-]?\d+)?$/i

/**
 * A report's groups as CSV (RFC 4180).
 *
 * @throws AppError `conflict` when it has not succeeded, or was made without groups.
 */
export function groupsCsv({ state, result, groupBy, value }: Report): string {
  if (!result) throw new AppError('conflict', `The report has no result: it is ${state}`)
  if (!result.groups)
    throw new AppError('conflict', 'The report has no groups: it was made without groupBy')
  const ofValue = value === null ? [] : [`sum of ${value}`, `mean of ${value}`]
  const rowOf = ({ key, count, sum, mean }: GroupSummary) => [
    key,
    count,
    ...(value === null ? [] : [sum, mean]),
  ]
  return [[groupBy, 'count', ...ofValue], ...result.groups.first.map(rowOf)].map(lineOf).join('')
}

const lineOf = (cells: (string | number | null)[]) => `${cells.map(cellOf).join(',')}\r\n`

function cellOf(cell: string | number | null): string {
  if (cell === null) return ''
  const text = typeof cell === 'string' ? harmless(cell) : String(cell)
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}

/**
 * Spreadsheets take a text that begins like a formula for one, and run it: the apostrophe says that
 * it is none.
 */
const harmless = (text: string) =>
  /^[=+\-@\t\r]/.test(text) && !NUMBER.test(text) ? `'${text}` : text
