import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'kysely'
import { pino } from 'pino'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { Database } from '../../../src/db/database.ts'
import { onServer, useDatabase } from '../../../test/support/database.ts'
import { until } from '../../../test/support/until.ts'
import { Health } from '../health.ts'
import { handle, job } from '../job.ts'
import { TIMING } from '../loop.ts'
import { setPaused } from '../queues.ts'
import type { Db } from '../tables.ts'
import { insertJobs } from './support/insert-jobs.ts'
import { enqueue, useJobs } from './support/jobs.ts'

const some = job<null>('test.some')
const HOUR_MS = 3_600_000

function useHealth(db: Db, queueOf = new Map<string, string>()) {
  const lines: Record<string, unknown>[] = []
  const log = pino({}, { write: (line) => void lines.push(JSON.parse(line)) })
  const timing = { ...TIMING, slowReadMs: 0.5 }
  const health = new Health({ open: () => db, log, timing, queueOf: () => queueOf })
  return { health, lines }
}

describe('the figures', () => {
  test('have how many wait in each queue, since when, and how many are parked', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const { health } = useHealth(db)
    const ago = (ms: number) => new Date(Date.now() - ms)
    await insertJobs(db, 3, { created_at: ago(HOUR_MS) })
    await insertJobs(db, 1, { kind: 'test.old', created_at: ago(9 * HOUR_MS), due_at: ago(100) })
    await insertJobs(db, 2, { kind: 'test.lost', state: 'parked' })
    const figures = await until(() => health.figures(), 'they are counted')
    expect(figures).toMatchObject({
      states: { queued: 4, parked: 2, failed: 0 },
      queues: [{ queue: 'default', queued: 4 }],
      parked: [{ kind: 'test.lost', count: 2 }],
    })
    const oldestMs = figures.queues[0]?.oldestMs ?? 0
    expect(oldestMs).toBeGreaterThan(HOUR_MS - 1_000)
    expect(oldestMs).toBeLessThan(HOUR_MS + 60_000)
  })

  test('count jobs in the queue that their kind is declared with, as they are claimed', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    await insertJobs(db, 2, { queue: 'before' })
    await insertJobs(db, 1, { kind: 'test.stranger', queue: 'theirs' })
    const { health } = useHealth(db, new Map([['test.some', 'mail']]))
    const figures = await until(() => health.figures(), 'they are counted')
    expect(figures.queues).toMatchObject([
      { queue: 'mail', queued: 2 },
      { queue: 'theirs', queued: 1 },
    ])
  })

  test('say of a paused queue how many wait, but not that somebody should start them', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const { health } = useHealth(db)
    await insertJobs(db, 3, { created_at: new Date(Date.now() - HOUR_MS) })
    await setPaused(db, 'default', { paused: true, queueOf: new Map([[some.name, 'default']]) })
    const { queues } = await until(() => health.figures(), 'they are counted')
    expect(queues).toEqual([{ queue: 'default', queued: 3, oldestMs: 0 }])
  })

  test('count the waiting time of a scheduled or retried job from when it was queued', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const { jobs } = useJobs(database, { concurrency: 0, timing: { pollMs: 20 } })
    const created_at = new Date(Date.now() - HOUR_MS)
    const due_at = new Date(Date.now() - 10_000)
    await insertJobs(db, 1, { state: 'scheduled', created_at, due_at })
    const [id = ''] = await insertJobs(db, 1, { state: 'failed', created_at })
    await jobs.retry(db, id)
    await until(async () => (await jobs.count(db)).queued === 2, 'both are queued')
    const { health } = useHealth(db)
    const figures = await until(() => health.figures(), 'they are counted')
    const oldestMs = figures.queues[0]?.oldestMs ?? 0
    expect(oldestMs).toBeGreaterThan(9_000)
    expect(oldestMs).toBeLessThan(HOUR_MS / 2)
  })

  test('are counted once for all who ask within a few seconds', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const { health } = useHealth(db)
    const time = performance.now()
    const clock = vi.spyOn(performance, 'now').mockReturnValue(time)
    onTestFinished(() => clock.mockRestore())
    const first = await until(() => health.figures(), 'they are counted')
    await insertJobs(db, 1)
    expect(await health.figures()).toBe(first)
    clock.mockReturnValue(time + 6_000)
    await until(async () => (await health.figures())?.states.queued === 1, 'they are new')
  })

  test('do not wait for a count that takes long', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const { health } = useHealth(db)
    await db.transaction().execute(async (trx) => {
      await sql`lock tables job write`.execute(trx)
      const startedAt = performance.now()
      expect(await health.figures()).toBeUndefined()
      expect(performance.now() - startedAt).toBeLessThan(1_000)
      await sql`unlock tables`.execute(trx)
    })
    await until(() => health.figures(), 'the count is over')
  })

  test('are missing while they cannot be counted, and the log says so once', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const { health, lines } = useHealth(db)
    const failures = () => lines.filter(({ msg }) => /^Cannot count the jobs/.test(String(msg)))
    await sql`rename table job to gone`.execute(db)
    for (let time = 0; time < 3; time++) expect(await health.figures()).toBeUndefined()
    await until(() => failures().length === 1, 'it is logged')
    await sql`rename table gone to job`.execute(db)
  })
})

describe('an observer', () => {
  test('is notified of waits, runs and jobs that failed for good, by kind', async () => {
    const { database } = await useDatabase()
    const { jobs, observed } = useObserved(database)
    await enqueue({ database, jobs }, good, null)
    await enqueue({ database, jobs }, bad, null)
    await until(() => observed.failed.length === 1, 'one has failed')
    await until(() => observed.ended.length === 3, 'all attempts are over')
    expect(observed.failed).toEqual([bad.name])
    const kinds = observed.started.map(({ kind }) => kind)
    expect(kinds.toSorted()).toEqual([bad.name, bad.name, good.name])
    const run = observed.ended.find(({ kind }) => kind === good.name)
    expect(run?.ms).toBeGreaterThan(25)
    for (const { ms } of observed.started) expect(ms).toBeLessThan(10_000)
  })

  test('is notified how long a job waited for its turn, and no more of one that was scheduled', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const created_at = new Date(Date.now() - HOUR_MS)
    await insertJobs(db, 1, { kind: good.name, created_at })
    const { observed } = useObserved(database)
    await until(() => observed.started.length === 1, 'it has begun')
    expect(observed.started[0]?.ms).toBeGreaterThan(HOUR_MS - 1_000)
    const due_at = new Date(Date.now() - 1_000)
    await insertJobs(db, 1, { kind: good.name, created_at, state: 'scheduled', due_at })
    await until(() => observed.started.length === 2, 'it has begun')
    expect(observed.started[1]?.ms).toBeLessThan(HOUR_MS / 2)
  })

  test('is notified of a job that failed with its process', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const due_at = new Date(Date.now() - 1_000)
    await insertJobs(db, 1, { state: 'running', attempt: 1, due_at })
    // After a turn that is late by half a heartbeat, nothing is rescued for a whole one.
    const timing = { heartbeatMs: 1_000, maxBackoffMs: 20, pollMs: 20 }
    const { observed } = useObserved(database, { timing })
    await until(() => observed.failed.length === 1, 'it is rescued, too late')
    expect(observed.failed).toEqual([some.name])
  })
})

const good = job<null>('test.good')
const bad = job<null>('test.bad', { attempts: 2, backoffMs: 1 })

function useObserved(database: Database, options = {}) {
  const observed = {
    started: [] as { kind: string; ms: number }[],
    ended: [] as { kind: string; ms: number }[],
    failed: [] as string[],
  }
  const { jobs } = useJobs(database, {
    handlers: [
      handle(good, () => sleep(30)),
      handle(bad, () => {
        throw new Error('It cannot be done')
      }),
    ],
    observer: {
      started: (kind, ms) => void observed.started.push({ kind, ms }),
      ended: (kind, ms) => void observed.ended.push({ kind, ms }),
      failed: (kind) => void observed.failed.push(kind),
    },
    timing: { pollMs: 20 },
    ...options,
  })
  return { jobs, observed }
}

describe('an open snapshot', () => {
  /** Old entries of the index in the way of each claim. */
  async function withHistory(db: Db, act: () => Promise<void>) {
    await db
      .transaction()
      .setIsolationLevel('repeatable read')
      .execute(async (snapshot) => {
        await snapshot.selectFrom('job').select('id').execute()
        await insertJobs(db, 1_000)
        for (let doubling = 0; doubling < 6; doubling++)
          await sql`
            insert into job (id, kind, state, priority, max_attempts, input)
            select uuid(), kind, state, priority, max_attempts, input from job
          `.execute(db)
        await sql`update job set state = 'succeeded', due_at = now(3) + interval 1 day`.execute(db)
        await act()
      })
  }

  test('that makes claims slow is reported once, with what to do, and that it is over', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const { health, lines } = useHealth(db)
    await health.runOnce()
    expect(health.claimReadMs).toBeLessThan(0.5)
    expect(lines).toEqual([])
    await withHistory(db, async () => {
      await health.runOnce()
      await health.runOnce()
      expect(health.claimReadMs).toBeGreaterThan(0.5)
      expect(health.historyLength).toBeGreaterThan(0)
      expect(lines).toMatchObject([
        { level: 40, msg: expect.stringMatching(/^Claims of jobs are slow.*KILL \d+$/) },
      ])
      expect(Date.now() - Date.parse(String(lines[0]?.['openSince']))).toBeLessThan(600_000)
    })
    await until(async () => {
      await health.runOnce()
      return lines.length === 2
    }, 'it is over')
    expect(lines[1]).toMatchObject({ msg: 'Claims are fast again' })
  })

  test('is reported to a user of the database without privileges, too', async () => {
    const { database, url } = await useDatabase()
    const plain = await usePlainUser(url)
    const { health, lines } = useHealth(plain.withSignal())
    await withHistory(database.withSignal(), async () => {
      await health.runOnce()
      expect(lines).toMatchObject([
        { level: 40, msg: expect.stringMatching(/find it in information_schema\.innodb_trx/) },
      ])
    })
  })
})

/** As the service has one: it may use its database, and see nothing else of the server. */
async function usePlainUser(url: string): Promise<Database> {
  const address = new URL(url)
  const name = address.pathname.slice(1)
  const user = `u${name.slice(-12)}`
  await onServer(`create user '${user}'@'%' identified by 'plain'`)
  await onServer(`grant all on \`${name}\`.* to '${user}'@'%'`)
  address.username = user
  address.password = 'plain'
  const database = await Database.open({ url: address.href, poolSize: 2 })
  onTestFinished(async () => {
    await database[Symbol.asyncDispose]()
    await onServer(`drop user '${user}'@'%'`)
  })
  return database
}
