import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { DuckDBInstance } from '@duckdb/node-api'
import { literal, type Queries, type Row } from '../../src/features/reports/duck.ts'
import { summariseSource } from '../../src/features/reports/summarise.ts'

/**
 * DuckDB's own run of a report's queries, with nothing around it and with as many threads as it likes: `fork` it and send
 * it a BareOrder.
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
  const source = `read_csv(${literal(file)}, header = true, store_rejects = true)`
  const summary = await summariseSource(queries, source, { groupBy, value }, () => {})
  const ms = performance.now() - startedAt
  connection.closeSync()
  instance.closeSync()
  await rm(folder, { recursive: true })
  return { ms, rows: summary.rows }
}
