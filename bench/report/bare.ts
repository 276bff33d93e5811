import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { DuckDBInstance } from '@duckdb/node-api'
import { type Column, summariseColumn } from '../../src/features/reports/columns.ts'
import { literal, type Queries, type Row } from '../../src/features/reports/duck.ts'
import { findGroupColumns, summariseGroups } from '../../src/features/reports/groups.ts'

/**
 * The same right answers by a bare script over DuckDB, with as many threads as it likes: a table of texts, the type of each
 * column by a query over all of its values, a table of those types, and the report's own queries. `fork` it and send it a
 * BareOrder.
 */
export interface BareOrder {
  file: string
  directory: string
  memoryMb: number
  groupBy: string
  value: string
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

async function summarise(duck: Queries, file: string, groupBy: string, value: string): Promise<number> {
  await duck.rows(`create table texts as select * from read_csv(${literal(file)}, header = true, all_varchar = true,
    delim = ',', quote = '"', escape = '"', comment = '', nullstr = '')`)
  const names = (await duck.rows('describe texts')).map(({ column_name }) => String(column_name))
  const figures = await duck.row(`select count(*)::double as rows, ${names.map(figuresOf)} from texts`)
  const columns = names.map((name) => columnOf(name, figures))
  const casts = columns.map(({ name, sqlType }) => `${name}::${sqlType} as ${name}`)
  await duck.rows(`create table data as select ${casts} from texts`)

  const rows = Number(figures['rows'])
  for (const column of columns) await summariseColumn(duck, column, rows)
  const grouped = findGroupColumns(columns, { groupBy, value })
  if (grouped) await summariseGroups(duck, grouped, groupBy)
  return rows
}

/** Whether all values of a column print back from a type as they were. */
const figuresOf = (name: string) => `count(${name})::double as ${name}_present,
  bool_and(try_cast(${name} as bigint)::varchar is not distinct from ${name}) as ${name}_is_bigint,
  bool_and(try_cast(${name} as decimal(38, 10)) is not null or ${name} is null) as ${name}_is_decimal,
  max(length(split_part(${name}, '.', 1)))::double as ${name}_whole,
  max(length(split_part(${name}, '.', 2)))::double as ${name}_scale,
  bool_and(${name} in ('true', 'false')) as ${name}_is_boolean,
  bool_and(try_cast(${name} as date)::varchar is not distinct from ${name}) as ${name}_is_date,
  bool_and(replace(try_cast(${name} as timestamp)::varchar, ' ', 'T') is not distinct from ${name}) as ${name}_is_timestamp`

function columnOf(name: string, figures: Row): Column {
  const figure = (suffix: string) => figures[`${name}_${suffix}`]
  const column = { name, sql: name, nulls: Number(figures['rows']) - Number(figure('present')), cast: undefined }
  const layout = { hasSeconds: true, fractionDigits: 0, zone: '' }
  if (figure('is_bigint')) return { ...column, type: 'integer', sqlType: 'BIGINT' }
  if (figure('is_decimal')) {
    const digits = Number(figure('whole')) + Number(figure('scale'))
    return { ...column, type: 'number', sqlType: `DECIMAL(${digits}, ${figure('scale')})` }
  }
  if (figure('is_boolean')) return { ...column, type: 'boolean', sqlType: 'BOOLEAN' }
  if (figure('is_date')) return { ...column, type: 'date', sqlType: 'DATE', layout }
  if (figure('is_timestamp')) return { ...column, type: 'timestamp', sqlType: 'TIMESTAMP', layout }
  return { ...column, type: 'text', sqlType: 'VARCHAR' }
}
