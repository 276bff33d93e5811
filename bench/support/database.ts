import { hash, randomBytes } from 'node:crypto'
import { type Connection, createConnection, type RowDataPacket } from 'mysql2/promise'
import { openTemporaryDatabase } from '../../scripts/database/local-database.ts'
import { prepareDatabase } from '../../scripts/prepare-database.ts'

/** An operator's in each of them, for requests that take a scope. */
export const API_KEY = `ofl_${'b'.repeat(43)}`
export const AS_OPERATOR = { authorization: `Bearer ${API_KEY}` }

/** A database of the bench's own, with the examples in it; gone when disposed of. */
export interface BenchDatabase extends AsyncDisposable {
  url: string
  /** `MariaDB 10.11.19`. */
  version: string
  /** `innodb_flush_log_at_trx_commit`: 1 writes each commit to the disk, 0 once a second. */
  flushLogAtCommit: number
}

/** Opens it on the server of DATABASE_URL, beside what is there, or on one started for it. */
export async function openBenchDatabase(): Promise<BenchDatabase> {
  await using opening = new AsyncDisposableStack()
  const server = opening.adopt(await openTemporaryDatabase(), (temporary) => temporary.stop())
  const admin = opening.adopt(await createConnection({ uri: server.url }), (connection) =>
    connection.end(),
  )
  const name = `offloop_bench_${randomBytes(4).toString('hex')}`
  await admin.query(`create database \`${name}\``)
  opening.defer(async () => void (await admin.query(`drop database \`${name}\``)))
  const url = Object.assign(new URL(server.url), { pathname: `/${name}` }).href
  await prepareDatabase(url)
  await admin.query(`use \`${name}\``)
  await addOperator(admin)

  const [[row]] = await admin.query<(RowDataPacket & { version: string; flush: number })[]>(
    'select version() as version, @@innodb_flush_log_at_trx_commit as flush',
  )
  const version = row?.version ?? ''
  const resources = opening.move()
  return {
    url,
    version: `${version.includes('MariaDB') ? 'MariaDB' : 'MySQL'} ${version.replace(/-.*/, '')}`,
    flushLogAtCommit: row?.flush ?? Number.NaN,
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  }
}

async function addOperator(admin: Connection) {
  await admin.query(`insert into account (email, role) values ('bench@localhost', 'operator')`)
  await admin.query(
    `insert into credential (id, kind, token_hash, account_id, name)
     select uuid(), 'key', ?, id, 'bench' from account`,
    [hash('sha256', API_KEY, 'base64url')],
  )
}
