import { CompiledQuery, sql } from 'kysely'
import { expect, onTestFinished, test, vi } from 'vitest'
import { MysqlConnection } from '../../../src/db/connection.ts'
import type { Db } from '../../../src/db/database.ts'
import { transaction } from '../../../src/db/transaction.ts'
import { useDatabase } from '../../../test/support/database.ts'
import { pruneSlots } from '../cleanup.ts'
import { insertJob, insertJobs, toNewJob } from '../enqueue.ts'
import { job, STATES, schedule } from '../job.ts'
import {
  countJobs,
  countWaiting,
  findIds,
  findJob,
  type JobFilter,
  listAttempts,
  listJobs,
  listKinds,
} from '../query.ts'
import { findPaused, listQueues } from '../queues.ts'
import type { Claim } from '../store.ts'
import { useClaims } from './support/claims.ts'
import { useMaintenance } from './support/maintenance.ts'

const ROWS_PER_STATE = 600
const some = job<null>('test.some', { attempts: 2 })
const other = job<null>('test.other')
const limited = job<null>('test.limited', {
  limit: 100,
  key: () => 'key',
  limitPerKey: 5,
  rate: { count: 100, perMs: 60_000 },
})

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
      dedupe_key: `${state}-${row}`,
      request_id: `r-${row % 50}`,
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
  const { store, claims, claim } = useClaims(db, [some, other, limited], { keepMs: -1_000 })
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
  await transaction(db, (trx) => insertJobs(trx, limited, [null, null, null]))
  const limits = useClaims(db, [limited])
  expect(await limits.claim(1)).toHaveLength(1)
  expect(await limits.claim(2)).toHaveLength(2)
  await transaction(db, (trx) => insertJob(trx, toNewJob(job<null>('test.unknown'), null)))
  expect(await claims.claimNamed(third.id)).toHaveLength(1)
  expect(await claims.findOtherKinds()).toContain('test.unknown')
  expect(await store.promote()).not.toHaveLength(0)
  expect(await store.rescue()).not.toHaveLength(0)
  await transaction(db, (trx) => store.cancel(trx, [third.id]))
  await transaction(db, (trx) => store.retry(trx, [third.id]))
  expect(await store.prune()).toBeGreaterThan(0)
  expect(await store.unpark(['test.some'])).not.toHaveLength(0)
  const keyed = toNewJob(some, null, { dedupeKey: 'key' })
  for (let time = 0; time < 2; time++) await transaction(db, (trx) => insertJob(trx, keyed))
  await findPaused(db)
  await listQueues(db, new Map())
  await findJob(db, third.id)
  await listAttempts(db, third.id)
  await listJobs(db, { limit: 20, before: third.id })
  await countJobs(db)
  await countWaiting(db, new Map())
  await useMaintenance(db, [
    schedule('test.1', '* * * * *', some, null),
  ]).maintenance.fireSchedules()
  await pruneSlots(() => db)
}

/** Each combination of what a list can be filtered by. */
function everyFilter(): JobFilter[] {
  const [now, earlier] = [new Date(), new Date(Date.now() - 60_000)]
  const all = Object.entries({
    state: 'failed',
    kind: 'test.some',
    key: 'failed-7',
    requestId: 'r-7',
    createdAfter: earlier,
    createdBefore: now,
  } satisfies JobFilter)
  return Array.from({ length: 2 ** all.length }, (_, chosen) =>
    Object.fromEntries(all.filter((_, bit) => chosen & (1 << bit))),
  )
}

/** What the server would do, for the tables of the jobs that grow. */
async function explain(db: Db, { sql: text, parameters }: CompiledQuery) {
  const { rows } = await db.executeQuery<Record<string, string | null>>(
    CompiledQuery.raw(`explain format = traditional ${text}`, [...parameters]),
  )
  const plan = rows.filter(({ table }) => /^job(?!_queue_state)/.test(table ?? ''))
  return plan.map(({ type, Extra }) => `${type} ${Extra}`).join('\n')
}

test('no statement of the jobs sorts rows or reads a whole table, as the service itself sends it', async () => {
  const db = await useManyJobs()
  const statements = await statementsOf(() => doEverything(db))
  expect(statements.length).toBeGreaterThan(25)
  for (const statement of statements)
    expect
      .soft(await explain(db, statement), statement.sql)
      .not.toMatch(/\bALL\b|filesort|temporary/)
})

test('each combination of filters is a range of an index, of which no more is read than it takes', async () => {
  const db = await useManyJobs()
  const before = '0100000f-0000-7000-8000-000000000000'
  const statements = await statementsOf(async () => {
    for (const filter of everyFilter()) {
      await listJobs(db, { ...filter, limit: 20 })
      await listJobs(db, { ...filter, limit: 20, before })
      if (!('state' in filter)) await countJobs(db, filter)
      else await findIds(db, { ...filter, state: 'failed' }, { limit: 500, before })
    }
  })
  expect(statements.length).toBeGreaterThan(150)
  for (const statement of statements) {
    const plan = await explain(db, statement)
    expect.soft(plan, statement.sql).not.toMatch(/^ALL|temporary/m)
    // At most one job of each kind has a key: those are sorted.
    if (!statement.sql.includes('(job_dedupe)'))
      expect.soft(plan, statement.sql).not.toMatch(/filesort/)
    // Of all jobs, the first of the primary key are read.
    if (statement.sql.includes(' = ?')) expect.soft(plan, statement.sql).not.toMatch(/^index /m)
  }
})

test('the kinds are read without reading their jobs', async () => {
  const db = await useManyJobs()
  const [statement] = await statementsOf(() => listKinds(db))
  expect(await explain(db, statement as CompiledQuery)).toMatch(/^range .*for group-by/)
})
