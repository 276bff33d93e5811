import { randomBytes } from 'node:crypto'
import { createConnection, type RowDataPacket } from 'mysql2/promise'
import { openTemporaryDatabase } from '../scripts/database/local-database.ts'
import { prepareDatabase } from '../scripts/prepare-database.ts'

/** A database of the load test's own, with the example products in it; gone when disposed of. */
export interface BenchDatabase extends AsyncDisposable {
  url: string
  /** `MariaDB 10.11.19`. */
  version: string
  /**
   * `innodb_flush_log_at_trx_commit`: 1 writes every commit to the disk, 0 leaves it to the next
   * second.
   */
  flushLogAtCommit: number
}

/**
 * Opens it on the server that DATABASE_URL names, next to what is there, or else on one started for
 * it.
 */
export async function openBenchDatabase(): Promise<BenchDatabase> {
  await using opening = new AsyncDisposableStack()
  const server = opening.adopt(await openTemporaryDatabase(), (temporary) => temporary.stop())
  const admin = opening.adopt(await createConnection({ uri: server.url }), (connection) =>
    connection.end(),
  )

  const name = `offloop_bench_${randomBytes(4).toString('hex')}`
  await admin.query(`create database ${name}`)
  opening.defer(async () => void (await admin.query(`drop database ${name}`)))
  const url = Object.assign(new URL(server.url), { pathname: `/${name}` }).href
  await prepareDatabase(url)

  const [[row]] = await admin.query<(RowDataPacket & { version: string; flush: number })[]>(
    'select version() as version, @@innodb_flush_log_at_trx_commit as flush',
  )
  const resources = opening.move()
  return {
    url,
    version: productOf(row?.version ?? ''),
    flushLogAtCommit: row?.flush ?? Number.NaN,
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  }
}

const productOf = (version: string) =>
  `${version.includes('MariaDB') ? 'MariaDB' : 'MySQL'} ${version.replace(/-.*/, '')}`
