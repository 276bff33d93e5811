import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { transaction } from '../../../src/db/transaction.ts'
import { useDatabase } from '../../../test/support/database.ts'
import { until } from '../../../test/support/until.ts'
import { insertJob, toNewJob } from '../enqueue.ts'
import { job } from '../job.ts'
import { claimQuery, dueQuery } from '../store.ts'
import type { Db, JobState, Trx } from '../tables.ts'
import { useClaims } from './support/claims.ts'

const JOBS = 200

const some = job<null>('test.some', { attempts: 1 })

const insert = (trx: Trx, priority = 0) => insertJob(trx, toNewJob(some, null, { priority }))

/** A queue with some finished and some running jobs beside it. */
async function useQueue() {
  const { database } = await useDatabase()
  const db = database.withSignal()
  const { store, claim } = useClaims(db, [some])
  await transaction(db, async (trx) => {
    for (let index = 0; index < JOBS; index++) await insert(trx, index % 3)
  })
  const claims = await claim(20)
  await store.finish(
    claims
      .slice(10)
      .map((claimed) => ({ claim: claimed, result: { state: 'succeeded', result: 'null' } })),
  )
  const claimed = async (ids: string[]) =>
    (
      await db
        .selectFrom('job')
        .select('id')
        .where('id', 'in', ids)
        .where('state', '=', 'running')
        .execute()
    ).length
  return { db, claim, claimed }
}

/** Thousands of jobs, older than any that is enqueued. */
async function insertMany(
  db: Db,
  count: number,
  { kind, state }: { kind: string; state: JobState },
) {
  const rows = Array.from({ length: count }, (_, index) => ({
    id: `01000000-0000-7000-8000-${index.toString(16).padStart(12, '0')}`,
    kind,
    state,
    due_at: state === 'succeeded' ? new Date(0) : null,
    priority: 0,
    max_attempts: 1,
    input: 'null',
  }))
  for (let from = 0; from < count; from += 1_000)
    await db
      .insertInto('job')
      .values(rows.slice(from, from + 1_000))
      .execute()
}

/**
 * How many rows and index entries the session's last statements read, by the server's own count.
 */
async function readsOf(trx: Db): Promise<number> {
  const { rows } = await sql<{ Value: string }>`show session status like 'Handler_read%'`.execute(
    trx,
  )
  return rows.reduce((sum, { Value }) => sum + Number(Value), 0)
}

test('a claim sorts nothing: it walks the index of the queue', async () => {
  const { db } = await useQueue()
  const { rows } = await sql`explain ${claimQuery(some.name, 5)}`.execute(db)
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
      const { rows } = await claimQuery(some.name, 5).execute(trx)
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
      const { rows: mine } = await claimQuery(some.name, JOBS - 20 - 5).execute(trx)
      // After a slow read, a claim tries the jobs that it has read: they may all be locked.
      const theirs = await until(async () => {
        const claims = await claim(10)
        return claims.length > 0 ? claims : undefined
      }, 'some are claimed')
      expect(theirs).toHaveLength(5)
      expect(mine.map(({ id }) => id)).not.toContain(theirs[0]?.id)
    },
    'read committed',
  )
})

test('a claim takes the most urgent first, and then the oldest', async () => {
  const { db } = await useQueue()
  const { rows } = await claimQuery(some.name, JOBS).execute(db)
  const order = await db
    .selectFrom('job')
    .select('id')
    .where('state', '=', 'queued')
    .orderBy('priority')
    .orderBy('id')
    .execute()
  expect(rows.map(({ id }) => id)).toEqual(order.map(({ id }) => id))
})

test('a claim finds its kinds behind thousands of others, and leaves those where they are', async () => {
  const { db, claim, claimed } = await useQueue()
  await insertMany(db, 20_000, { kind: 'test.foreign', state: 'queued' })
  const ids: string[] = []
  for (let turn = 0; turn < 10; turn++) {
    const claims = await claim(5)
    expect(claims).toHaveLength(5)
    ids.push(...claims.map(({ id }) => id))
  }
  expect(new Set(ids).size).toBe(50)
  expect(await claimed(ids)).toEqual(ids.length)
  const { foreign } = await db
    .selectFrom('job')
    .select(({ fn }) => fn.countAll().as('foreign'))
    .where('kind', '=', 'test.foreign')
    .where('state', '=', 'queued')
    .executeTakeFirstOrThrow()
  expect(Number(foreign)).toBe(20_000)
})

test('claims go on under a long transaction, and find what is urgent within a moment', async () => {
  const { database } = await useDatabase()
  const db = database.withSignal()
  const { claim } = useClaims(db, [some])
  await db
    .transaction()
    .setIsolationLevel('repeatable read')
    .execute(async (snapshot) => {
      await snapshot.selectFrom('job').select('id').execute()
      await insertMany(db, 20_000, { kind: 'test.some', state: 'queued' })
      await sql`update job set state = 'succeeded', due_at = now(3) + interval 1 day`.execute(db)
      const ids: string[] = []
      await transaction(db, async (trx) => {
        for (let index = 0; index < 6; index++) ids.push((await insert(trx, 1)).id)
      })
      const claimed: string[] = []
      for (let turn = 0; turn < 6; turn++) claimed.push(...(await claim(1)).map(({ id }) => id))
      expect(claimed.toSorted()).toEqual(ids.toSorted())
      const { id: urgent } = await transaction(db, (trx) => insert(trx))
      await until(
        async () => (await claim(1))[0]?.id === urgent,
        'the urgent job is claimed',
        5_000,
      )
    })
})

test('pruning sorts nothing: it walks the index of what is due', async () => {
  const { db } = await useQueue()
  await insertMany(db, 2_000, { kind: 'test.some', state: 'succeeded' })
  const { rows } = await sql`explain format = traditional ${dueQuery('succeeded', 500)}`.execute(db)
  expect(rows).toMatchObject([{ key: 'job_due' }])
  expect(JSON.stringify(rows)).not.toMatch(/filesort|temporary/i)
})
