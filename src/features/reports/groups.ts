import { type Column, identifier, isNumeric, numberOf, numbersOf, shortText, textOf } from './columns.ts'
import type { Grouping, Summary } from './contract.ts'
import type { Queries } from './duck.ts'
import { Unreadable } from './source.ts'

const MAX_GROUPS = 1_000

/** @throws Unreadable when a column that is asked for is missing, or the one to sum up holds no numbers. */
export function assertGroupable(columns: readonly Column[], { groupBy, value }: Grouping): void {
  for (const name of [groupBy, value]) if (name !== null) findColumn(columns, name)
  if (value !== null && !isNumeric(findColumn(columns, value)))
    throw new Unreadable(`The column "${value}" cannot be summed up: it does not hold numbers only`)
}

/** The largest groups of the table `data`; null where none are asked for. */
export async function summariseGroups(
  duck: Queries,
  columns: readonly Column[],
  { groupBy, value }: Grouping,
): Promise<Summary['groups']> {
  if (groupBy === null) return null
  const key = identifier(groupBy)
  const numbers = value === null ? 'null::double' : numbersOf(findColumn(columns, value))
  const rows = await duck.rows(`select ${shortText(key)} as key, count(*)::double as count, sum(${numbers}) as sum,
    avg(${numbers}) as mean from data group by ${key} order by count desc, ${key} nulls last limit ${MAX_GROUPS}`)
  const { total } = await duck.row(`select count(*)::double as total from (select ${key} from data group by ${key})`)
  const first = rows.map(({ key, count, sum, mean }) => ({
    key: textOf(key),
    count: Number(count),
    sum: numberOf(sum),
    mean: numberOf(mean),
  }))
  return { groupBy, value, total: Number(total), first }
}

function findColumn(columns: readonly Column[], name: string): Column {
  const column = columns.find((candidate) => candidate.name === name)
  if (column) return column
  const names = columns.map(({ name }) => `"${name}"`).join(', ')
  throw new Unreadable(`There is no column "${name}"; the file has ${names}`.slice(0, 900))
}
