import { type Column, isNumeric, readSum, shortText, sumOf, textOf } from './columns.ts'
import type { Grouping, Summary } from './contract.ts'
import type { Queries } from './duck.ts'
import { Unreadable } from './source.ts'

const MAX_GROUPS = 1_000

/** The columns that are grouped by and summed up. */
export interface GroupColumns {
  groupBy: Column
  value: Column | undefined
}

/**
 * @throws Unreadable when a column that is asked for is missing, or the one to sum up holds no
 * numbers.
 */
export function findGroupColumns(
  columns: readonly Column[],
  { groupBy, value }: Grouping,
): GroupColumns | undefined {
  if (groupBy === null) return undefined
  const found = {
    groupBy: findColumn(columns, groupBy),
    value: value === null ? undefined : findColumn(columns, value),
  }
  if (found.value && !isNumeric(found.value))
    throw new Unreadable(`The column "${value}" cannot be summed up: it does not hold numbers only`)
  return found
}

/**
 * The largest groups of the table `data`.
 *
 * @param key the column with the values to group by as they are written in the file.
 */
export async function summariseGroups(
  duck: Queries,
  { groupBy, value }: GroupColumns,
  key: string,
): Promise<Summary['groups']> {
  const sum = value ? `${sumOf(value)}, count(${value.sql})::double as present` : 'null as sum'
  const rows = await duck.rows(`select ${shortText(key)} as text, count(*)::double as count, ${sum}
    from data group by ${key} order by count desc, ${key} nulls last limit ${MAX_GROUPS}`)
  const { total } = await duck.row(
    `select count(*)::double as total from (select ${key} from data group by ${key})`,
  )
  const first = rows.map((row) => ({
    key: textOf(row['text']),
    count: Number(row['count']),
    ...readSum(row, Number(row['present'])),
  }))
  return { groupBy: groupBy.name, value: value?.name ?? null, total: Number(total), first }
}

function findColumn(columns: readonly Column[], name: string): Column {
  const column = columns.find((candidate) => candidate.name === name)
  if (column) return column
  const names = columns.map(({ name }) => `"${name}"`).join(', ')
  throw new Unreadable(`There is no column "${name}"; the file has ${names}`.slice(0, 900))
}
