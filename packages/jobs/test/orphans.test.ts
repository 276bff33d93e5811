import { sql } from 'kysely'
import { pino } from 'pino'
import { describe, expect, test } from 'vitest'
import { useDatabase } from '../../../test/support/database.ts'
import { until } from '../../../test/support/until.ts'
import { handle, job } from '../job.ts'
import { countJobs } from '../query.ts'
import type { Db } from '../tables.ts'
import { insertJobs } from './support/insert-jobs.ts'
import { enqueue, useJobs } from './support/jobs.ts'
import { useCleanup } from './support/maintenance.ts'

const some = job<null>('test.some')
const other = job<null>('test.other')

/** As if nothing had handled, seen or retried jobs of `some` for that long. */
const letPass = (db: Db, time: string) =>
  sql`
    update job_kind set handled_at = handled_at - interval ${sql.raw(time)}
    where kind = ${some.name}
  `.execute(db)

/** One job that nobody handles, and a process without handlers that has stopped its clean-up. */
async function useOrphan(options = {}) {
  const { database } = await useDatabase()
  const db = database.withSignal()
  const { jobs } = useJobs(database, { concurrency: 0, timing: { bulkMs: 60_000 } })
  await jobs.stop()
  const { id } = await enqueue({ database, jobs }, some, null, options)
  const { runToEnd, changes } = useCleanup(db, [])
  const park = async () => {
    await runToEnd()
    await letPass(db, '25 hour')
    await runToEnd()
  }
  const find = async () => jobs.find(db, id)
  return { database, db, jobs, id, park, runToEnd, changes, find }
}

describe('a queued job of a kind without a handler', () => {
  test('stays in the queue for a day, then it is parked', async () => {
    const { db, id, runToEnd, changes, find } = await useOrphan()
    await runToEnd()
    await letPass(db, '23 hour')
    await runToEnd()
    expect(await find()).toMatchObject({ state: 'queued' })
    await letPass(db, '2 hour')
    await runToEnd()
    expect(await find()).toMatchObject({ state: 'parked', attempt: 0, finishedAt: null })
    expect(changes).toMatchObject([{ id, state: 'parked' }])
  })

  test('stays there for as long as some process handles its kind', async () => {
    const { db, runToEnd, find } = await useOrphan()
    await runToEnd()
    await letPass(db, '25 hour')
    await useCleanup(db, [some.name]).runToEnd()
    await useCleanup(db, []).runToEnd()
    expect(await find()).toMatchObject({ state: 'queued' })
  })

  test('is run by a process with a handler that starts later', async () => {
    const { database, park, find } = await useOrphan()
    await park()
    expect(await find()).toMatchObject({ state: 'parked' })
    useJobs(database, { handlers: [handle(some, () => {})] })
    await until(async () => (await find())?.state === 'succeeded', 'it is done')
  })

  test('stays parked when a process starts that leaves jobs to others', async () => {
    const { database, db, park, find } = await useOrphan()
    await park()
    const lines: string[] = []
    const log = pino({}, { write: (line) => void lines.push(line) })
    const handlers = [handle(some, () => {}), handle(other, () => {})]
    useJobs(database, { concurrency: 0, handlers, log, timing: { cleanUpMs: 10 } })
    // Before its job, of which the clean-up would take the kind as new.
    await sql`insert into job_kind values (${other.name}, now(3) - interval 2 day)`.execute(db)
    const [id = ''] = await insertJobs(db, 1, { kind: other.name })
    const state = async () =>
      (await db.selectFrom('job').select('state').where('id', '=', id).executeTakeFirst())?.state
    await until(async () => (await state()) === 'parked', 'its clean-up has had a turn')
    expect(await find()).toMatchObject({ state: 'parked' })
  })

  test('is retried by an operator: it has another day', async () => {
    const { db, jobs, id, park, runToEnd, find } = await useOrphan()
    await park()
    expect(await jobs.retry(db, id)).toMatchObject({ state: 'queued' })
    await runToEnd()
    expect(await find()).toMatchObject({ state: 'queued' })
    await letPass(db, '25 hour')
    await runToEnd()
    expect(await find()).toMatchObject({ state: 'parked' })
  })

  test('is cancelled like any unfinished one, alone or with all that match', async () => {
    const { db, jobs, id, park, find } = await useOrphan()
    await park()
    expect(await jobs.cancel(db, id)).toMatchObject({ state: 'cancelled' })
    expect((await find())?.finishedAt).not.toBeNull()
    await insertJobs(db, 700, { state: 'parked' })
    expect((await jobs.cancelAll(db, { state: 'parked' })).changed).toBe(700)
  })

  test('keeps its dedupe key, and is not pruned', async () => {
    const { database, jobs, id, park, db } = await useOrphan({ dedupeKey: 'once' })
    await park()
    await useCleanup(db, [], { keepMs: -1_000 }).runToEnd()
    const again = await enqueue({ database, jobs }, some, null, { dedupeKey: 'once' })
    expect(again.id).toBe(id)
  })
})

test('50 000 orphans are parked and returned in short transactions, and delay no other job', async () => {
  const { database } = await useDatabase({ poolSize: 10 })
  const db = database.withSignal()
  await insertJobs(db, 50_000, { kind: some.name })
  const { jobs } = useJobs(database, {
    handlers: [handle(other, () => {})],
    timing: { pollMs: 20 },
  })
  const waits: number[] = []
  const runOthersWhile = async (work: Promise<unknown>) => {
    let isOver = false
    void work.finally(() => {
      isOver = true
    })
    while (!isOver) {
      const startedAt = performance.now()
      const { id } = await enqueue({ database, jobs }, other, null)
      await until(async () => (await jobs.find(db, id))?.finishedAt, 'it is done')
      waits.push(performance.now() - startedAt)
    }
    await work
  }
  const orphaned = useCleanup(db, [])
  await orphaned.cleanup.runOnce()
  await letPass(db, '25 hour')
  const untilParked = (count: number) =>
    until(async () => (await countJobs(db)).parked === count, `${count} are parked`, 120_000)
  await runOthersWhile(Promise.all([orphaned.runToEnd(), untilParked(50_000)]))
  await runOthersWhile(Promise.all([useCleanup(db, [some.name]).runToEnd(), untilParked(0)]))
  expect(waits.length).toBeGreaterThan(4)
  const median = waits.toSorted((a, b) => a - b)[Math.floor(waits.length / 2)]
  expect(median).toBeLessThan(2_000)
}, 240_000)

test('several processes that park and return the same jobs at once do it once, without deadlocks', async () => {
  const { database } = await useDatabase({ poolSize: 10 })
  const db = database.withSignal()
  const ids = await insertJobs(db, 3_000)
  const orphaned = [1, 2, 3, 4].map(() => useCleanup(db, []))
  await orphaned[0]?.cleanup.runOnce()
  await letPass(db, '25 hour')
  await Promise.all(orphaned.map(({ runToEnd }) => runToEnd()))
  const parked = orphaned.flatMap(({ changes }) => changes.map(({ id }) => id))
  expect(parked.toSorted()).toEqual(ids)
  const handling = [1, 2, 3, 4].map(() => useCleanup(db, [some.name]))
  await Promise.all(handling.map(({ runToEnd }) => runToEnd()))
  const returned = handling.flatMap(({ changes }) => changes.map(({ id }) => id))
  expect(returned.toSorted()).toEqual(ids)
})
