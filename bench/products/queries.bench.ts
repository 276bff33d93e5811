import { setTimeout as sleep } from 'node:timers/promises'
import { Kysely, MysqlDialect } from 'kysely'
import { createConnection, createPool, type PoolOptions, type RowDataPacket } from 'mysql2'
import { Database, type Db } from '../../src/db/database.ts'
import type { Tables } from '../../src/db/tables.ts'
import { getProduct } from '../../src/features/products/products.ts'
import type { Bench } from '../support/bench.ts'
import { openBenchDatabase } from '../support/database.ts'
import { median, medianRatio } from '../support/statistics.ts'
import { number } from '../support/table.ts'

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

type Call = () => Promise<unknown>

interface QueriesFigures {
  ways: { name: string; perSecond: number; ofMysql2: number }[]
}

export const bench: Bench<QueriesFigures> = {
  description: "one row by its key: mysql2, our driver and Kysely's; a minute",
  packages: ['mysql2', 'kysely'],

  async run({ started, progress }) {
    const bench = started.use(await openBenchDatabase())
    const candidates = await openCandidates(bench.url, started)
    const rates: Record<string, number[]> = {}
    for (let round = 0; round < ROUNDS; round++)
      for (const [name, call] of Object.entries(candidates)) {
        progress.next(`round ${round + 1} of ${ROUNDS}: ${name}`)
        rates[name] = [...(rates[name] ?? []), await countPerSecond(call)]
        await sleep(PAUSE_MS)
      }
    const [first = []] = Object.values(rates)
    const ways = Object.entries(rates).map(([name, all]) => ({
      name,
      perSecond: median(all),
      ofMysql2: medianRatio(all, first),
    }))
    return {
      tables: [
        {
          title: `One row by its key, ${CALLERS} callers at once`,
          rows: [
            ['', 'per second', 'of mysql2'],
            ...ways.map(({ name, perSecond, ofMysql2 }) => [
              name,
              number(perSecond, 0),
              number(ofMysql2, 2),
            ]),
          ],
        },
      ],
      figures: { versions: { database: bench.version }, ways },
    }
  },

  summarise: ({ ways }) =>
    ways
      .slice(1)
      .map(({ name, ofMysql2 }) => [
        `one row by its key, ${name}`,
        number(ofMysql2, 2),
        'of mysql2, prepared',
      ]),
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
