import { Kysely, MysqlDialect } from 'kysely'
import { createConnection, createPool, type PoolOptions, type RowDataPacket } from 'mysql2'
import { Database, type Db } from '../../src/db/database.ts'
import type { Tables } from '../../src/db/tables.ts'
import { getProduct } from '../../src/features/products/products.ts'
import type { Bench } from '../support/bench.ts'
import { openBenchDatabase } from '../support/database.ts'
import { compareRates, type Way } from '../support/in-turns.ts'
import { number } from '../support/table.ts'

const CALLERS = 10
const CALLS = 5_000
const ROUNDS = 9
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

type Call = () => Promise<unknown>

export const bench: Bench<{ ways: Way[] }> = {
  description: "one row by its key: mysql2, our driver and Kysely's; a minute",
  packages: ['mysql2', 'kysely'],

  async run({ started }) {
    const own = started.use(await openBenchDatabase())
    const candidates = await openCandidates(own.url, started)
    const ways = await compareRates(ROUNDS, candidates, countPerSecond)
    return {
      tables: [{ title: `One row by its key, ${CALLERS} callers at once`, rows: ways }],
      figures: { versions: { database: own.version }, ways },
    }
  },

  summarise: ({ ways: [first, ours] }) => [
    [`one row by its key, ${ours?.name}`, number(ours?.ofFirst, 2), `of ${first?.name}`],
  ],
}

async function openCandidates(
  uri: string,
  started: AsyncDisposableStack,
): Promise<Record<string, Call>> {
  const options: PoolOptions = { uri, connectionLimit: CALLERS, timezone: 'Z' }
  const pool = started.adopt(createPool(options), (open) => open.promise().end())
  const text = `select ${COLUMNS.join(', ')} from product where id = ?`
  const ours = started.use(await Database.open({ url: uri, poolSize: CALLERS }))
  const theirs = started.adopt(
    new Kysely<Tables>({
      dialect: new MysqlDialect({ pool: createPool(options), controlConnection: createConnection }),
    }),
    (open) => open.destroy(),
  )
  const build = (db: Db) => db.selectFrom('product').select(COLUMNS).where('id', '=', ID)
  const signal = () => new AbortController().signal
  return {
    'mysql2, prepared': () =>
      new Promise((resolve, reject) =>
        pool.execute<RowDataPacket[]>(text, [ID], (error, rows) =>
          error ? reject(error) : resolve(rows),
        ),
      ),
    'our driver, prepared, with a signal': () => getProduct(ours.withSignal(signal()), ID),
    'our driver, built each time, with a signal': () => build(ours.withSignal(signal())).execute(),
    "Kysely's driver, built each time": () => build(theirs).execute(),
    "Kysely's driver, built each time, with a signal": () =>
      build(theirs).execute({ signal: signal(), inflightQueryAbortStrategy: 'cancel query' }),
  }
}

async function countPerSecond(call: Call): Promise<number> {
  const startedAt = performance.now()
  let calls = 0
  const caller = async () => {
    while (calls++ < CALLS) await call()
  }
  await Promise.all(Array.from({ length: CALLERS }, caller))
  return CALLS / ((performance.now() - startedAt) / 1_000)
}
