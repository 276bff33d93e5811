import { sql } from 'kysely'
import { describe, expect, test } from 'vitest'
import { transaction } from '../../../src/db/transaction.ts'
import { useDatabase } from '../../../test/support/database.ts'
import { until } from '../../../test/support/until.ts'
import { handle, job } from '../job.ts'
import { countJobs, findJob } from '../query.ts'
import { JobStore } from '../store.ts'
import type { Db } from '../tables.ts'
import { insertJobs } from './support/insert-jobs.ts'
import { useJobs } from './support/jobs.ts'
import { useCleanup } from './support/maintenance.ts'

const busy = job<null>('test.busy')
const OLD = { due_at: new Date(0) }

/** As finished jobs are: each with an attempt. */
async function insertFinished(db: Db, count: number, state = 'succeeded') {
  const ids = await insertJobs(db, count, { ...OLD, state })
  for (let from = 0; from < count; from += 1_000)
    await db
      .insertInto('job_attempt')
      .values(
        ids.slice(from, from + 1_000).map((job_id) => ({
          job_id,
          fence: 1,
          attempt: 1,
          worker: 'w',
        })),
      )
      .execute()
  return ids
}

const countAttempts = async (db: Db) =>
  Number(
    (await sql<{ count: string }>`select count(*) as count from job_attempt`.execute(db)).rows[0]
      ?.count,
  )

describe('finished jobs whose time is over', () => {
  test('go with their attempts, whatever their end was; others stay', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    for (const state of ['succeeded', 'failed', 'cancelled']) await insertFinished(db, 700, state)
    await insertJobs(db, 5, { state: 'succeeded', due_at: new Date(Date.now() + 60_000) })
    await insertJobs(db, 5, { state: 'queued', ...OLD })
    await insertJobs(db, 5, { state: 'parked' })
    await useCleanup(db, []).runToEnd()
    expect(await countJobs(db)).toEqual({
      scheduled: 0,
      queued: 5,
      running: 0,
      parked: 5,
      succeeded: 5,
      failed: 0,
      cancelled: 0,
    })
    expect(await countAttempts(db)).toBe(0)
  })

  test('become fewer while others finish', async () => {
    const { database } = await useDatabase({ poolSize: 10 })
    const db = database.withSignal()
    await insertFinished(db, 20_000)
    let done = 0
    const handlers = [handle(busy, () => void done++)]
    const { jobs } = useJobs(database, { keepMs: -1_000, handlers, timing: { cleanUpMs: 20 } })
    for (let batch = 0; batch < 10; batch++)
      await transaction(db, async (trx) => {
        for (let index = 0; index < 100; index++) await jobs.enqueue(trx, busy, null)
      })
    await until(() => done === 1_000, 'all are done')
    expect((await countJobs(db)).succeeded).toBeLessThan(20_000)
    await until(async () => (await countJobs(db)).succeeded === 0, 'none is left')
  })

  test('are pruned by several processes at once without waits or deadlocks', async () => {
    const { database } = await useDatabase({ poolSize: 10 })
    const db = database.withSignal()
    await insertFinished(db, 6_000)
    await transaction(
      db,
      async (trx) => {
        const oldest = await sql<{ id: string }>`
          select id from job force index (job_state) where state = 'succeeded'
          order by state, id limit 100 for update
        `.execute(trx)
        expect(oldest.rows).toHaveLength(100)
        const processes = [1, 2, 3, 4].map(() => useCleanup(db, []))
        await Promise.all(processes.map(({ runToEnd }) => runToEnd()))
        expect((await countJobs(db)).succeeded).toBe(100)
      },
      'read committed',
    )
    await useCleanup(db, []).runToEnd()
    expect((await countJobs(db)).succeeded).toBe(0)
  })

  test('that an operator is just retrying are kept', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const store = new JobStore({ open: () => db, transaction, keepMs: 60_000 })
    const { cleanup } = useCleanup(db, [])
    await cleanup.runOnce()
    const [id = ''] = await insertFinished(db, 1, 'failed')
    await transaction(db, async (trx) => {
      await store.retry(trx, [id])
      await cleanup.runOnce()
    })
    expect(await findJob(db, id)).toMatchObject({ state: 'queued' })
  })
})
