import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { DuckDBInstance } from '@duckdb/node-api'
import type { Column } from '../../src/features/reports/column-types.ts'
import {
  findGroupColumns,
  summariseColumn,
  summariseGroups,
} from '../../src/features/reports/columns.ts'
import { type Queries, type Row, toLiteral } from '../../src/features/reports/duck.ts'

/**
 * The same answers by a bare script over DuckDB, with as many threads as it likes: the dialect is
 * given, the types are those that DuckDB finds for all values of a column, and the queries are the
 * report's own. Sums of decimals are those of doubles, which takes less time than the report's
 * exact ones. `fork` it and send it a BareOrder.
 */
export interface BareOrder {
  file: string
  directory: string
  memoryMb: number
  groupBy: string
  value: string
}

const TYPES: Record<string, Column['type']> = {
  BIGINT: 'integer',
  DOUBLE: 'number',
  BOOLEAN: 'boolean',
  DATE: 'date',
  TIMESTAMP: 'timestamp',
}

export interface BareResult {
  ms: number
  rows: number
}

process.on('message', async (order: BareOrder) => process.send?.(await run(order)))
process.on('disconnect', () => process.exit())

async function run({ file, directory, memoryMb, groupBy, value }: BareOrder): Promise<BareResult> {
  const folder = await mkdtemp(join(directory, 'bare-'))
  const startedAt = performance.now()
  const instance = await DuckDBInstance.create(join(folder, 'bare.duckdb'), {
    memory_limit: `${memoryMb}MB`,
    temp_directory: join(folder, 'spill'),
    preserve_insertion_order: 'false',
  })
  const connection = await instance.connect()
  const rows = async (sql: string) => (await connection.runAndReadAll(sql)).getRowObjectsJson()
  const queries: Queries = { rows, row: async (sql): Promise<Row> => (await rows(sql))[0] ?? {} }
  const count = await summarise(queries, file, groupBy, value)
  const ms = performance.now() - startedAt
  connection.closeSync()
  instance.closeSync()
  await rm(folder, { recursive: true })
  return { ms, rows: count }
}

async function summarise(
  duck: Queries,
  file: string,
  groupBy: string,
  value: string,
): Promise<number> {
  await duck.rows(`create table data as select * from read_csv(${toLiteral(file)}, header = true, sample_size = -1,
    delim = ',', quote = '"', escape = '"', comment = '')`)
  const described = await duck.rows('describe data')
  const names = described.map(({ column_name }) => String(column_name))
  const counts = await duck.row(
    `select count(*)::double as rows, ${names.map((name) => `count(${name})::double as ${name}`)} from data`,
  )
  const rows = Number(counts['rows'])
  const columns = described.map(({ column_name, column_type }): Column => {
    const [name, sqlType] = [String(column_name), String(column_type)]
    return {
      name,
      sql: name,
      sqlType,
      type: TYPES[sqlType] ?? 'text',
      nulls: rows - Number(counts[name]),
    }
  })
  for (const column of columns) await summariseColumn(duck, column, rows)
  const grouped = findGroupColumns(columns, { groupBy, value })
  if (grouped) await summariseGroups(duck, grouped, groupBy)
  return rows
}
