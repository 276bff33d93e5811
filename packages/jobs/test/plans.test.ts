import { CompiledQuery, sql } from 'kysely'
import { expect, onTestFinished, test, vi } from 'vitest'
import { MysqlConnection } from '../../../src/db/connection.ts'
import type { Db } from '../../../src/db/database.ts'
import { transaction } from '../../../src/db/transaction.ts'
import { useDatabase } from '../../../test/support/database.ts'
import { insertJob, toNewJob } from '../enqueue.ts'
import { job, STATES, schedule } from '../job.ts'
import { pruneSlots } from '../maintenance.ts'
import { type Claim, countJobs, findJob, JobStore, listAttempts, listJobs } from '../store.ts'
import { useMaintenance } from './support/maintenance.ts'

const ROWS_PER_STATE = 600
const ROOMS = new Map([
  ['test.some', 9],
  ['test.other', 9],
])
const some = job<null>('test.some', { attempts: 2 })

/** A database with jobs of all states, each with an attempt, as many as make the planner choose. */
async function useManyJobs() {
  const { database } = await useDatabase()
  const db = database.withSignal()
  for (const [index, state] of STATES.entries()) {
    const ids = Array.from(
      { length: ROWS_PER_STATE },
      (_, row) => `0100000${index}-0000-7000-8000-${String(row).padStart(12, '0')}`,
    )
    // Half of what has a time is due.
    const dueAt = (row: number) =>
      state === 'queued' ? null : new Date(Date.now() + (row % 2 === 0 ? -1 : 1) * 3_600_000)
    const rows = ids.map((id, row) => ({
      id,
      kind: 'test.some',
      state,
      due_at: dueAt(row),
      priority: row % 3,
      max_attempts: 2,
      fence: 1,
      input: 'null',
    }))
    await db.insertInto('job').values(rows).execute()
    await db
      .insertInto('job_attempt')
      .values(ids.map((job_id) => ({ job_id, fence: 1, attempt: 1, worker: 'w' })))
      .execute()
  }
  const slots = Array.from({ length: 3_000 }, (_, row) => ({
    schedule: `test.${row % 3}`,
    slot: new Date(row * 1_000),
  }))
  await db.insertInto('job_slot').values(slots).execute()
  await sql`analyze table job, job_attempt, job_slot`.execute(db)
  return db
}

/** What `act` sends to the server, each statement once. */
async function statementsOf(act: () => Promise<unknown>): Promise<CompiledQuery[]> {
  const spy = vi.spyOn(MysqlConnection.prototype, 'executeQuery')
  onTestFinished(() => spy.mockRestore())
  await act()
  const queries = spy.mock.calls
    .map(([query]) => query)
    .filter((query) => /^\s*(select|update|delete)/i.test(query.sql))
  spy.mockRestore()
  return [...new Map(queries.map((query) => [query.sql, query])).values()]
}

/** Everything that the store and the schedules do, on a queue that has work for each of them. */
async function doEverything(db: Db) {
  const store = new JobStore({ open: () => db, transaction, keepMs: -1_000 })
  const claim = async (limit: number) =>
    (await store.claim({ worker: 'w', rooms: ROOMS, limit, leaseMs: 30_000 })).claims
  const [first, second, third, ...rest] = (await claim(9)) as [Claim, Claim, Claim, ...Claim[]]
  await store.renew([first, second], 30_000)
  await store.writeProgress(first, 0.5, 'half')
  await store.findLost([first, second])
  await store.finish([
    { claim: first, result: { state: 'succeeded', result: 'null' } },
    { claim: second, result: { state: 'failed', error: 'x', detail: 'x' } },
    { claim: third, result: { state: 'queued' } },
    ...rest.map((claimed) => ({
      claim: claimed,
      result: { state: 'scheduled', error: 'x', detail: 'x', delayMs: 1_000 } as const,
    })),
  ])
  const named = await store.claim({
    worker: 'w',
    rooms: ROOMS,
    limit: 1,
    leaseMs: 30_000,
    ids: [third.id],
  })
  expect(named.claims).toHaveLength(1)
  await store.findOtherKinds(new Set(ROOMS.keys()))
  expect(await store.promote()).not.toHaveLength(0)
  expect(await store.rescue()).not.toHaveLength(0)
  await transaction(db, (trx) => store.cancel(trx, third.id))
  await transaction(db, (trx) => store.retry(trx, third.id))
  expect(await store.prune()).toBeGreaterThan(0)
  const keyed = toNewJob(some, null, { dedupeKey: 'key' })
  for (let time = 0; time < 2; time++) await transaction(db, (trx) => insertJob(trx, keyed))
  await findJob(db, third.id)
  await listAttempts(db, third.id)
  await listJobs(db, { limit: 20, before: third.id })
  await countJobs(db)
  await useMaintenance(db, [
    schedule('test.1', '* * * * *', some, null),
  ]).maintenance.fireSchedules()
  await pruneSlots(() => db)
}

test('no statement of the jobs sorts rows or reads a whole table, as the service itself sends it', async () => {
  const db = await useManyJobs()
  const statements = await statementsOf(() => doEverything(db))
  expect(statements.length).toBeGreaterThan(25)
  for (const { sql: text, parameters } of statements) {
    const { rows } = await db.executeQuery<Record<string, string | null>>(
      CompiledQuery.raw(`explain format = traditional ${text}`, [...parameters]),
    )
    const plan = rows.filter(({ table }) => /^job/.test(table ?? ''))
    expect
      .soft(plan.map(({ type, Extra }) => `${type} ${Extra}`).join(', '), text)
      .not.toMatch(/\bALL\b|filesort|temporary/)
  }
})
