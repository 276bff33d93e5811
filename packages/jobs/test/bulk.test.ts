import { once } from 'node:events'
import { expect, test } from 'vitest'
import type { Database } from '../../../src/db/database.ts'
import { transaction } from '../../../src/db/transaction.ts'
import { useDatabase } from '../../../test/support/database.ts'
import { until } from '../../../test/support/until.ts'
import { handle, job } from '../job.ts'
import { countJobs } from '../query.ts'
import type { JobState } from '../tables.ts'
import { enqueue, useJobs } from './support/jobs.ts'

const some = job<null>('test.some', { attempts: 1 })
/** On a slow machine, too, all that a call may change. */
const SLOW = { bulkMs: 60_000 }
const filter = { state: 'failed', kind: some.name } as const

async function insert(database: Database, state: JobState, count: number) {
  const rows = Array.from({ length: count }, (_, index) => ({
    id: `01a1fc0d-0000-7000-8000-${String(index).padStart(12, '0')}`,
    kind: some.name,
    state,
    due_at: new Date(Date.now() + 60_000),
    priority: 0,
    max_attempts: 1,
    input: 'null',
  }))
  for (let start = 0; start < count; start += 1_000)
    await database
      .withSignal()
      .insertInto('job')
      .values(rows.slice(start, start + 1_000))
      .execute()
}

test('one call retries the newest 10 000 and says that there are more', async () => {
  const { database } = await useDatabase()
  const db = database.withSignal()
  const { jobs } = useJobs(database, { concurrency: 0, timing: SLOW })
  await insert(database, 'failed', 10_050)
  expect(await jobs.retryAll(db, filter)).toEqual({ changed: 10_000, more: true })
  const [oldest] = await jobs.list(db, { state: 'failed', limit: 1 })
  expect(oldest?.id).toMatch(/000000000049$/)
  expect(await jobs.retryAll(db, filter)).toEqual({ changed: 50, more: false })
  expect(await countJobs(db)).toMatchObject({ failed: 0, queued: 10_050 })
})

test('a call that takes long stops after a batch and says that there are more', async () => {
  const { database } = await useDatabase()
  const db = database.withSignal()
  const { jobs } = useJobs(database, { concurrency: 0, timing: { bulkMs: 0 } })
  await insert(database, 'failed', 1_000)
  expect(await jobs.retryAll(db, filter)).toEqual({ changed: 500, more: true })
  expect(await jobs.retryAll(db, filter)).toEqual({ changed: 500, more: false })
})

test('a job that fails again at once is retried only once', async () => {
  const { database } = await useDatabase()
  const db = database.withSignal()
  await insert(database, 'failed', 1_200)
  /** As if workers were done before the next batch is read. */
  const failAgain: typeof transaction = async (on, story, isolation) => {
    const result = await transaction(on, story, isolation)
    await db.updateTable('job').set({ state: 'failed' }).where('state', '=', 'queued').execute()
    return result
  }
  const { jobs } = useJobs(database, { concurrency: 0, timing: SLOW, transaction: failAgain })
  expect(await jobs.retryAll(db, filter)).toEqual({ changed: 1_200, more: false })
})

test('retried jobs start at once, not with the next poll', async () => {
  const { database } = await useDatabase()
  const db = database.withSignal()
  const timing = { pollMs: 600_000, maxBackoffMs: 50 }
  const { jobs } = useJobs(database, { handlers: [handle(some, () => {})], timing })
  await insert(database, 'failed', 3)
  await jobs.retryAll(db, filter)
  await until(async () => (await countJobs(db)).succeeded === 3, 'they were run')
})

test('cancelled jobs that run get the signal, and those that wait never start', async () => {
  const { database } = await useDatabase()
  const db = database.withSignal()
  const aborted: string[] = []
  const wait = handle(some, async (_, { id, signal }) => {
    await once(signal, 'abort')
    aborted.push(id)
  })
  const { jobs } = useJobs(database, { handlers: [wait], concurrency: 2 })
  for (let index = 0; index < 5; index++) await enqueue({ database, jobs }, some, null)
  await until(async () => (await countJobs(db)).running === 2, 'two run')
  const kind = some.name
  expect(await jobs.cancelAll(db, { state: 'queued', kind })).toEqual({ changed: 3, more: false })
  expect(await jobs.cancelAll(db, { state: 'running', kind })).toEqual({ changed: 2, more: false })
  await until(() => aborted.length === 2, 'both were aborted')
  expect(await countJobs(db)).toMatchObject({ cancelled: 5, queued: 0, running: 0 })
})
