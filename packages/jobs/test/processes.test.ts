import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'kysely'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { Database } from '../../../src/db/database.ts'
import { transaction } from '../../../src/db/transaction.ts'
import { useDatabase } from '../../../test/support/database.ts'
import { useProcess } from '../../../test/support/process.ts'
import { until } from '../../../test/support/until.ts'
import type { Jobs } from '../jobs.ts'
import { countJobs } from '../query.ts'
import type { JobState } from '../tables.ts'
import { findMost } from './support/history.ts'
import { enqueue, useJobs } from './support/jobs.ts'
import { fair, leaveMark, limited, poison, sayWho, waitForSignal } from './support/test-jobs.ts'

const TIMING = {
  leaseMs: 1_500,
  heartbeatMs: 400,
  pollMs: 100,
  watchMs: 50,
  maxBackoffMs: 500,
  graceMs: 300,
}
const JOBS = 300
const KILLS = 6
const KILL_EVERY_MS = 1_000

/**
 * A database, and jobs on it that only enqueue and look: the work is for processes of their own.
 */
async function useQueue() {
  const { database, url } = await useDatabase()
  await sql`create table mark (name varchar(50) primary key)`.execute(database.withSignal())
  const { jobs } = useJobs(database, { concurrency: 0, timing: { pollMs: 60_000 } })
  const start = async (env: NodeJS.ProcessEnv = {}) => {
    const running = useProcess('packages/jobs/test/support/jobs-service.ts', {
      DATABASE_URL: url,
      TIMING: JSON.stringify(TIMING),
      ...env,
    })
    await until(() => running.output().includes('is ready'), 'it is ready')
    return running
  }
  return { database, jobs, start, db: database.withSignal() }
}

type Running = Awaited<ReturnType<Awaited<ReturnType<typeof useQueue>>['start']>>

const isIn = (
  state: JobState,
  { database, jobs }: { database: Database; jobs: Jobs },
  id: string,
) =>
  until(async () => (await jobs.find(database.withSignal(), id))?.state === state, `it is ${state}`)

/** Starts one again whenever it ends, as an orchestrator does. */
function keepAlive(start: () => Promise<Running>) {
  let stopped = false
  const lives = { count: 0 }
  const living = (async () => {
    while (!stopped) {
      const running = await start()
      lives.count++
      await running.exitCode
    }
  })()
  onTestFinished(() => {
    stopped = true
    void living
  })
  return lives
}

test('two processes that are killed over and over do every job, its effect once, none lost and none stuck', {
  timeout: 120_000,
}, async () => {
  const { database, db, jobs, start } = await useQueue()
  await transaction(db, async (trx) => {
    for (let index = 0; index < JOBS; index++)
      await jobs.enqueue(trx, leaveMark, { mark: `mark ${index}`, ms: 100 + Math.random() * 600 })
  })
  const processes = await Promise.all([start({ CONCURRENCY: '10' }), start({ CONCURRENCY: '10' })])
  for (let kill = 0; kill < KILLS; kill++) {
    await sleep(KILL_EVERY_MS * (0.5 + Math.random()))
    const victim = Math.random() < 0.5 ? 0 : 1
    processes[victim]?.child.kill('SIGKILL')
    await processes[victim]?.exitCode
    processes[victim] = await start({ CONCURRENCY: '10' })
  }
  await until(async () => (await jobs.count(db)).succeeded === JOBS, 'all are done', 60_000)

  await expectSoundHistories(database, KILLS)
  const marks = await sql<{ name: string }>`select name from mark`.execute(db)
  expect(marks.rows.map(({ name }) => name).toSorted()).toEqual(
    Array.from({ length: JOBS }, (_, index) => `mark ${index}`).toSorted(),
  )
})

test('four processes that are killed over and over never exceed a limit, and do every job', {
  timeout: 120_000,
}, async () => {
  const { db, jobs, start } = await useQueue()
  const length = 60
  await transaction(db, async (trx) => {
    await jobs.enqueueMany(
      trx,
      limited,
      Array.from({ length }, () => ({ ms: 150 })),
    )
    await jobs.enqueueMany(
      trx,
      fair,
      Array.from({ length }, (_, index) => ({ tenant: `tenant-${index % 4}`, ms: 100 })),
    )
  })
  const processes = await Promise.all(Array.from({ length: 4 }, () => start()))
  const replace = async (victim: number) => {
    processes[victim]?.child.kill('SIGKILL')
    await processes[victim]?.exitCode
    processes[victim] = await start()
  }
  await until(async () => (await countJobs(db)).running > 0, 'some run')
  // At first all at once: whichever runs them loses them.
  await Promise.all(processes.map((_, victim) => replace(victim)))
  for (let kill = 1; kill < KILLS; kill++) {
    await sleep(KILL_EVERY_MS * Math.random())
    await replace(Math.floor(Math.random() * processes.length))
  }
  await until(async () => (await countJobs(db)).succeeded === 2 * length, 'all are done', 60_000)
  expect((await findMost(db, 'kind')).get(limited.name)).toBe(3)
  const byTenant = await findMost(db, 'limit_key')
  for (let tenant = 0; tenant < 4; tenant++) expect(byTenant.get(`tenant-${tenant}`)).toBe(1)
  const lost = await db
    .selectFrom('job_attempt')
    .select('job_id')
    .where('outcome', '=', 'lost')
    .execute()
  expect(lost).not.toHaveLength(0)
})

/**
 * One success each, as the last of its attempts; what came before it was lost with its process, and
 * over when the next began.
 */
async function expectSoundHistories(database: Database, kills: number) {
  const attempts = await database
    .withSignal()
    .selectFrom('job_attempt')
    .selectAll()
    .orderBy('job_id')
    .orderBy('fence')
    .execute()
  const histories = Object.values(Object.groupBy(attempts, ({ job_id }) => job_id)).map(
    (history = []) => history,
  )
  expect(histories).toHaveLength(JOBS)
  for (const history of histories) {
    expect(history.map(({ outcome }) => outcome)).toEqual([
      ...Array(history.length - 1).fill('lost'),
      'succeeded',
    ])
    expect(history.map(({ fence }) => fence)).toEqual(history.map((_, index) => index + 1))
    for (const [index, { started_at }] of history.entries())
      expect(started_at.getTime()).toBeGreaterThanOrEqual(
        history[index - 1]?.finished_at?.getTime() ?? 0,
      )
  }
  const lost = attempts.filter(({ outcome }) => outcome === 'lost')
  expect(lost.length).toBeGreaterThanOrEqual(kills / 2)
}

test('a process that slept past its lease changes nothing of a job that another has finished', async () => {
  const queue = await useQueue()
  const { db, jobs, start } = queue
  // It renews no lease: stopped amid that, it would keep the job locked.
  const timing = { TIMING: JSON.stringify({ ...TIMING, heartbeatMs: 600_000 }) }
  const sleeper = await start({ CONCURRENCY: '1', ...timing })
  const { id } = await enqueue(queue, sayWho, { mark: 'asleep' })
  await isIn('running', queue, id)
  sleeper.child.kill('SIGSTOP')
  await sql`insert into mark (name) values ('asleep')`.execute(db)
  const other = await start({ CONCURRENCY: '1' })
  await isIn('succeeded', queue, id)
  const finished = await jobs.find(db, id)
  expect(finished?.result).toBe(other.child.pid)
  other.child.kill('SIGTERM')
  expect(await other.exitCode).toBe(0)

  // Its place is free for the next job only after it has tried to say that it did the first one.
  sleeper.child.kill('SIGCONT')
  const { id: next } = await enqueue(queue, sayWho, { mark: 'asleep' })
  await isIn('succeeded', queue, next)
  expect((await jobs.find(db, next))?.result).toBe(sleeper.child.pid)
  expect(await jobs.find(db, id)).toEqual(finished)
  expect(await jobs.attempts(db, id)).toMatchObject([{ outcome: 'lost' }, { outcome: 'succeeded' }])
})

describe('a job that ends its process', () => {
  test.each(['exit', 'throw'] as const)(
    'by %s fails for good after its attempts, and the rest goes on',
    { timeout: 120_000 },
    async (way) => {
      const queue = await useQueue()
      const { db, jobs, start } = queue
      const { id } = await enqueue(queue, poison, { way }, { priority: -1 })
      await transaction(db, async (trx) => {
        for (let index = 0; index < 20; index++)
          await jobs.enqueue(trx, leaveMark, { mark: `beside ${index}`, ms: 50 })
      })
      const lives = keepAlive(start)
      await until(async () => (await jobs.count(db)).succeeded === 20, 'the rest is done', 60_000)
      await isIn('failed', queue, id)
      expect(await jobs.find(db, id)).toMatchObject({
        attempt: 3,
        error: 'Every process that began it ended before it was done',
      })
      expect((await jobs.attempts(db, id)).map(({ outcome }) => outcome)).toEqual([
        'lost',
        'lost',
        'lost',
      ])
      expect(lives.count).toBeGreaterThanOrEqual(3)
    },
  )
})

test('a process that stops releases its jobs, and another claims them at once', async () => {
  const queue = await useQueue()
  const { db, jobs, start } = queue
  const timing = { TIMING: JSON.stringify({ ...TIMING, leaseMs: 60_000 }) }
  const leaving = await start(timing)
  const { id } = await enqueue(queue, waitForSignal, null)
  await isIn('running', queue, id)
  const [first] = await jobs.attempts(db, id)
  await start(timing)
  leaving.child.kill('SIGTERM')
  expect(await leaving.exitCode).toBe(0)
  // Long before its lease would expire.
  const attempts = await until(async () => {
    const all = await jobs.attempts(db, id)
    return all.length === 2 && all
  }, 'it runs again')
  expect(attempts).toMatchObject([
    { attempt: 1, worker: first?.worker, outcome: 'released' },
    { attempt: 1, outcome: null },
  ])
})
