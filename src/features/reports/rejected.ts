import { textOf } from './columns.ts'
import type { Summary } from './contract.ts'
import type { Queries } from './duck.ts'

const QUOTED = 20
const MAX_LINE_CHARACTERS = 500

const REASONS: Record<string, string> = {
  CAST: 'A value is not of the type of its column',
  'MISSING COLUMNS': 'It has too few columns',
  'TOO MANY COLUMNS': 'It has too many columns',
  'UNQUOTED VALUE': 'A quote is not closed, or something follows it',
  'LINE SIZE OVER MAXIMUM': 'It is too long',
  'INVALID ENCODING': 'It is not valid UTF-8',
  'INVALID STATE': 'It breaks the rules of quoting',
}

/** The rows that did not parse: a row with several errors counts once, by its first one. */
export async function summariseRejected(duck: Queries): Promise<Summary['rejected']> {
  const { rows } = await duck.row('select count(distinct line)::double as rows from reject_errors')
  const first = await duck.rows(`select line::double as line, arg_min(column_name, coalesce(column_idx, 0)) as "column",
    arg_min(error_type::varchar, coalesce(column_idx, 0)) as kind, left(any_value(csv_line), ${MAX_LINE_CHARACTERS}) as text
    from reject_errors group by line order by line limit ${QUOTED}`)
  return {
    rows: Number(rows),
    first: first.map(({ line, column, kind, text }) => ({
      line: Number(line),
      column: textOf(column),
      reason: REASONS[String(kind)] ?? 'It cannot be read',
      text: textOf(text) ?? '',
    })),
  }
}
