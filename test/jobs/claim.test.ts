import { sql } from 'kysely'
import { expect, test } from 'vitest'
import type { Db } from '../../src/db/database.ts'
import { transaction } from '../../src/db/transaction.ts'
import { claimQuery } from '../../src/jobs/locks.ts'
import { insertJob } from '../../src/jobs/queries.ts'
import { JobStore } from '../../src/jobs/store.ts'
import { useDatabase } from '../support/database.ts'

const JOBS = 200
const KINDS = new Set(['test.some'])

const newJob = (index: number) => ({
  kind: 'test.some',
  input: 'null',
  maxAttempts: 1,
  priority: index % 3,
  runAt: null,
  dedupeKey: null,
  requestId: null,
})

/** A queue with some finished and some running jobs beside it. */
async function useQueue() {
  const { database } = await useDatabase()
  const db = database.withSignal()
  const store = new JobStore(() => db, { keepMs: 1_000 })
  const claim = (limit: number) => store.claim({ worker: 'w', kinds: KINDS, limit, leaseMs: 30_000 })
  await transaction(db, async (trx) => {
    for (let index = 0; index < JOBS; index++) await insertJob(trx, newJob(index))
  })
  const { claims } = await claim(20)
  await store.settle(claims.slice(10).map((claimed) => ({ claim: claimed, outcome: { state: 'succeeded', result: 'null' } })))
  return { db, claim }
}

/** How many rows and index entries the session's last statements read, by the server's own count. */
async function readsOf(trx: Db): Promise<number> {
  const { rows } = await sql<{ Value: string }>`show session status like 'Handler_read%'`.execute(trx)
  return rows.reduce((sum, { Value }) => sum + Number(Value), 0)
}

test('a claim sorts nothing: it walks the index of the queue', async () => {
  const { db } = await useQueue()
  const { rows } = await sql`explain ${claimQuery(5)}`.execute(db)
  // A table of MariaDB's, a tree of MySQL's.
  const plan = JSON.stringify(rows)
  expect(plan).toContain('job_queue')
  expect(plan).not.toMatch(/sort|temporary|table scan/i)
})

test('a claim reads the rows that it takes, and no others of the queue', async () => {
  const { db } = await useQueue()
  await transaction(
    db,
    async (trx) => {
      const before = await readsOf(trx)
      const looked = await readsOf(trx)
      const { rows } = await claimQuery(5).execute(trx)
      const cost = (await readsOf(trx)) - looked - (looked - before)
      expect(rows).toHaveLength(5)
      expect(cost).toBe(5)
    },
    'read committed',
  )
})

test('a claim locks the rows that it takes and no others', async () => {
  const { db, claim } = await useQueue()
  await transaction(
    db,
    async (trx) => {
      const { rows: mine } = await claimQuery(JOBS - 20 - 5).execute(trx)
      const { claims: theirs } = await claim(10)
      expect(theirs).toHaveLength(5)
      expect(mine.map(({ id }) => id)).not.toContain(theirs[0]?.id)
    },
    'read committed',
  )
})

test('a claim takes the most urgent first, and then the oldest', async () => {
  const { db } = await useQueue()
  const { rows } = await claimQuery(JOBS).execute(db)
  const order = await db.selectFrom('job').select('id').where('state', '=', 'queued').orderBy('priority').orderBy('id').execute()
  expect(rows.map(({ id }) => id)).toEqual(order.map(({ id }) => id))
})
