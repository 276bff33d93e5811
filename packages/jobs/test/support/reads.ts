import { type RawBuilder, sql } from 'kysely'
import type { Db, Trx } from '../../tables.ts'

/** What a query returns, and how many rows and index entries it read by the server's own count. */
export const readsOf = <Row>(db: Db, query: RawBuilder<Row>) =>
  db
    .transaction()
    .setIsolationLevel('read committed')
    .execute(async (trx) => {
      const before = await countReads(trx)
      const looked = await countReads(trx)
      const { rows } = await query.execute(trx)
      const reads = (await countReads(trx)) - looked - (looked - before)
      return { rows, reads }
    })

async function countReads(trx: Trx): Promise<number> {
  const { rows } = await sql<{ Value: string }>`show session status like 'Handler_read%'`.execute(
    trx,
  )
  return rows.reduce((sum, { Value }) => sum + Number(Value), 0)
}
