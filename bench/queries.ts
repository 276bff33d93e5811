import { setTimeout as sleep } from 'node:timers/promises'
import { Kysely, MysqlDialect } from 'kysely'
import { createConnection, createPool, type PoolOptions, type RowDataPacket } from 'mysql2'
import { Database, type Db } from '../src/db/database.ts'
import type { Tables } from '../src/db/tables.ts'
import { findProduct } from '../src/features/products/queries.ts'
import { openBenchDatabase } from './database.ts'
import { median } from './statistics.ts'

/**
 * `npm run bench:queries`: one row by its key, ten callers at a time, by mysql2 alone, by our
 * driver and by Kysely's. These are the figures of docs/decisions/002-own-driver.md.
 */
const CALLERS = 10
const CALLS = 5_000
const ROUNDS = 9
const PAUSE_MS = 50
const ID = 7
const COLUMNS = [
  'id',
  'name',
  'price',
  'stock',
  'version',
  'created_at as createdAt',
  'updated_at as updatedAt',
] as const

const database = await openBenchDatabase()
console.table(await measure(await openCandidates(database.url)))
await database[Symbol.asyncDispose]()
process.exit()

async function openCandidates(uri: string): Promise<Record<string, () => Promise<unknown>>> {
  const options: PoolOptions = { uri, connectionLimit: CALLERS, timezone: 'Z' }
  const pool = createPool(options)
  const text = `select ${COLUMNS.join(', ')} from product where id = ?`
  const ours = await Database.open({ url: uri, poolSize: CALLERS })
  const theirs = new Kysely<Tables>({
    dialect: new MysqlDialect({ pool: createPool(options), controlConnection: createConnection }),
  })
  const build = (db: Db) => db.selectFrom('product').select(COLUMNS).where('id', '=', ID)
  const signal = () => new AbortController().signal
  return {
    'mysql2, prepared': () =>
      new Promise((resolve, reject) =>
        pool.execute<RowDataPacket[]>(text, [ID], (error, rows) =>
          error ? reject(error) : resolve(rows),
        ),
      ),
    'our driver, prepared, with a signal': () => findProduct(ours.withSignal(signal()), ID),
    'our driver, built each time, with a signal': () => build(ours.withSignal(signal())).execute(),
    "Kysely's driver, built each time": () => build(theirs).execute(),
    "Kysely's driver, built each time, with a signal": () =>
      build(theirs).execute({ signal: signal(), inflightQueryAbortStrategy: 'cancel query' }),
  }
}

async function measure(candidates: Record<string, () => Promise<unknown>>) {
  const perSecond: Record<string, number[]> = {}
  for (let round = 0; round < ROUNDS; round++)
    for (const [name, call] of Object.entries(candidates)) {
      perSecond[name] = [...(perSecond[name] ?? []), await callsPerSecond(call)]
      await sleep(PAUSE_MS)
    }
  const [first = []] = Object.values(perSecond)
  return Object.fromEntries(
    Object.entries(perSecond).map(([name, rates]) => {
      const ratios = rates.map((rate, round) => rate / (first[round] ?? Number.NaN))
      return [
        name,
        { 'per second': Math.round(median(rates)), 'of mysql2': Number(median(ratios).toFixed(2)) },
      ]
    }),
  )
}

async function callsPerSecond(call: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now()
  let calls = 0
  const caller = async () => {
    while (calls++ < CALLS) await call()
  }
  await Promise.all(Array.from({ length: CALLERS }, caller))
  return CALLS / ((performance.now() - startedAt) / 1_000)
}
