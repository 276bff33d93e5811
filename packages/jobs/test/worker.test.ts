import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'kysely'
import { pino } from 'pino'
import { describe, expect, test } from 'vitest'
import { transaction } from '../../../src/db/transaction.ts'
import { useDatabase } from '../../../test/support/database.ts'
import { until } from '../../../test/support/until.ts'
import { insertJob, toNewJob } from '../enqueue.ts'
import { handle, type JobChange, job } from '../job.ts'
import { TIMING } from '../loop.ts'
import { findJob, listAttempts } from '../query.ts'
import { JobStore } from '../store.ts'
import { Worker } from '../worker.ts'
import { enqueue, useJobs } from './support/jobs.ts'

/** So rarely that no test sees it. */
const NEVER_MS = 3_600_000
const now = sql<Date>`now(3)`
const JOBS = 60

interface Note {
  name: string
  ms?: number
  /** Goes on only once so many have begun. */
  begun?: number
}

const note = job<Note>('test.note', { attempts: 3, backoffMs: 20 })
const flaky = job<null, number>('test.flaky', { attempts: 3, backoffMs: 20 })
const untilAborted = job<null>('test.until-aborted')
const single = job<null>('test.single', { limit: 1 })

/** The "processes" of a test, which share a database, and the names that their handlers noted. */
async function useProcesses(concurrencies: number[], pollMs = TIMING.pollMs) {
  const { database } = await useDatabase({ poolSize: 10 })
  const noted: string[] = []
  const handlers = [
    handle(note, async ({ name, ms = 0, begun = 0 }) => {
      noted.push(name)
      await until(() => noted.length >= begun, 'others have begun')
      await sleep(ms)
    }),
    handle(flaky, (_, { attempt }) =>
      attempt < 3 ? Promise.reject(new Error('not yet')) : attempt,
    ),
    handle(untilAborted, (_, { signal }) => sleep(60_000, undefined, { signal })),
  ]
  const processes = concurrencies.map((concurrency) =>
    useJobs(database, { handlers, concurrency, timing: { pollMs } }),
  )
  const jobs = processes[0]?.jobs ?? expect.unreachable()
  const put = (input: Note, options = {}) => enqueue({ database, jobs }, note, input, options)
  const db = database.withSignal()
  const stateOf = async (id: string) => (await jobs.find(db, id))?.state
  return { database, db, jobs, processes, noted, put, stateOf }
}

describe('a worker', () => {
  test('begins what was committed in its process at once', async () => {
    const { put, noted } = await useProcesses([1], NEVER_MS)
    await put({ name: 'a' })
    await until(() => noted.length === 1, 'it is begun')
  })

  test('finds what another process enqueued', async () => {
    const { put, noted } = await useProcesses([0, 1])
    await put({ name: 'a' })
    await until(() => noted.length === 1, 'it is begun')
  })

  test('shares the queue with others: each job runs once, wherever there is room', async () => {
    const { put, noted, db, jobs, processes } = await useProcesses([3, 3])
    const names = Array.from({ length: JOBS }, (_, index) => `job ${index}`)
    // More than one process has places for: the other takes part, however late it looks.
    for (const name of names) await put({ name, ms: 30, begun: 4 })
    await until(async () => (await jobs.count(db)).succeeded === JOBS, 'all are done')
    expect(noted.toSorted()).toEqual(names.toSorted())
    for (const { changes } of processes)
      expect(changes.some(({ state }) => state === 'running')).toBe(true)
  })

  test('never runs more jobs than it has places', async () => {
    const { put, jobs, processes } = await useProcesses([2])
    const running: number[] = []
    jobs.onChange(() => running.push(jobs.running))
    for (let index = 0; index < 8; index++) await put({ name: `job ${index}`, ms: 20, begun: 2 })
    await until(
      () => processes[0]?.changes.filter(({ state }) => state === 'succeeded').length === 8,
      'all are done',
    )
    expect(Math.max(...running)).toBe(2)
  })

  test('begins the urgent first', async () => {
    const { database, db, jobs, put, noted } = await useProcesses([1])
    const { id } = await enqueue({ database, jobs }, untilAborted, null)
    await until(() => jobs.running === 1, 'the only place is taken')
    await put({ name: 'later' }, { priority: 5 })
    await put({ name: 'now' }, { priority: -5 })
    await put({ name: 'soon' })
    await jobs.cancel(db, id)
    await until(() => noted.length === 3, 'all are begun')
    expect(noted).toEqual(['now', 'soon', 'later'])
    expect((await jobs.find(db, id))?.state).toBe('cancelled')
  })

  test('begins what is for later when its time has come', async () => {
    const { db, jobs, processes, put, stateOf } = await useProcesses([1])
    const runAt = new Date(Date.now() + 1_500)
    const { id } = await put({ name: 'a' }, { runAt })
    expect(processes[0]?.statesOf(id)[0]).toBe('scheduled')
    await until(async () => (await stateOf(id)) === 'succeeded', 'it is done')
    const startedAt = (await jobs.find(db, id))?.startedAt?.getTime()
    expect(startedAt).toBeGreaterThanOrEqual(runAt.getTime())
  })

  test('retries what failed', async () => {
    const { database, db, jobs, stateOf } = await useProcesses([1])
    const { id } = await enqueue({ database, jobs }, flaky, null)
    await until(async () => (await stateOf(id)) === 'succeeded', 'it is done')
    expect(await jobs.find(db, id)).toMatchObject({ attempt: 3, result: 3, error: null })
  })

  test('does not begin what was cancelled, until an operator retries it', async () => {
    const { db, jobs, put, noted, stateOf } = await useProcesses([1])
    const { id } = await put({ name: 'a' }, { runAt: new Date(Date.now() + 60_000) })
    await jobs.cancel(db, id)
    await put({ name: 'b' })
    await until(() => noted.length === 1, 'the other is begun')
    expect(await stateOf(id)).toBe('cancelled')
    await jobs.retry(db, id)
    await until(async () => (await stateOf(id)) === 'succeeded', 'it is done')
    expect(noted).toEqual(['b', 'a'])
  })

  test('claims no more once it is stopped, and leaves the rest to others', async () => {
    const { jobs, put, processes, stateOf } = await useProcesses([1, 1])
    await jobs.stop()
    const { id } = await put({ name: 'a' })
    await until(async () => (await stateOf(id)) === 'succeeded', 'another does it')
    expect(processes[0]?.statesOf(id)).toEqual(['queued'])
  })

  test('releases its jobs when it stops, though its clean-up hangs', async () => {
    const { database, db, jobs } = await useProcesses([0])
    const over = Promise.withResolvers<void>()
    await db.insertInto('job_kind').values({ kind: untilAborted.name, handled_at: now }).execute()
    const locking = db.transaction().execute(async (trx) => {
      await trx.selectFrom('job_kind').selectAll().forUpdate().execute()
      await over.promise
    })
    const handlers = [handle(untilAborted, (_, { signal }) => sleep(60_000, undefined, { signal }))]
    const stopping = useJobs(database, { handlers })
    const { id } = await enqueue({ database, jobs }, untilAborted, null)
    await until(() => stopping.jobs.running === 1, 'it runs')
    await stopping.jobs.stop()
    expect(await jobs.find(db, id)).toMatchObject({ state: 'queued', attempt: 0 })
    over.resolve()
    await locking
  })

  test('claims no more before it stops, and finishes what runs', async () => {
    const { jobs, put, processes, stateOf } = await useProcesses([2, 0])
    const running = await put({ name: 'a', ms: 300 })
    await until(async () => (await stateOf(running.id)) === 'running', 'it runs')
    jobs.stopClaiming()
    const { id } = await put({ name: 'b' })
    await until(async () => (await stateOf(running.id)) === 'succeeded', 'it is done')
    expect(processes[0]?.statesOf(id)).toEqual(['queued'])
  })
})

/** A worker without its loops: the test takes their turns. */
async function useWorker(concurrency: number) {
  const { database } = await useDatabase()
  const db = database.withSignal()
  const changes: JobChange[] = []
  const goOn = Promise.withResolvers<void>()
  const worker = new Worker({
    store: new JobStore({ open: () => db, transaction, keepMs: 60_000 }),
    log: pino({ level: 'silent' }),
    name: 'w',
    queues: { '*': concurrency },
    timing: TIMING,
    handlers: [untilAborted, single].map((kind) => handle(kind, () => goOn.promise)),
    publicMessage: String,
    around: (_, run) => run(),
    onChange: (some) => changes.push(...some),
    onNotice: (change) => changes.push(change),
  })
  const put = async (kind: typeof single) =>
    (await transaction(db, (trx) => insertJob(trx, toNewJob(kind, null)))).id
  return { db, worker, changes, put, end: goOn.resolve }
}

describe('one turn', () => {
  test('of claiming takes as many jobs as there are places, and of a kind with a limit as many as it may have', async () => {
    const { worker, changes, put } = await useWorker(3)
    for (let index = 0; index < 3; index++) await put(single)
    for (let index = 0; index < 4; index++) await put(untilAborted)
    while (await worker.claimOnce());
    expect(changes.map(({ kind }) => kind).toSorted()).toEqual([
      single.name,
      untilAborted.name,
      untilAborted.name,
    ])
    expect(worker.running).toBe(3)
  })

  test('of claiming takes one more that a schedule enqueued, and the newest of the next when that has ended', async () => {
    const { worker, changes, put, end } = await useWorker(1)
    await put(untilAborted)
    await worker.claimOnce()
    const first = await put(untilAborted)
    const [stale, second] = [await put(untilAborted), await put(untilAborted)]
    worker.claimScheduled('one', first, untilAborted.name)
    worker.claimScheduled('two', stale, untilAborted.name)
    worker.claimScheduled('two', second, untilAborted.name)
    await worker.claimOnce()
    await worker.claimOnce()
    expect(changes.map(({ id }) => id)).toEqual([expect.any(String), first])
    expect(worker.running).toBe(2)
    end()
    await until(() => worker.running === 0, 'both have ended')
    await worker.finishOnce()
    await worker.claimOnce()
    const begun = changes.filter(({ state }) => state === 'running').map(({ id }) => id)
    expect(begun.slice(2)).toEqual([second, stale])
  })

  test('of finishing writes what has ended', async () => {
    const { db, worker, put, end } = await useWorker(2)
    const id = await put(untilAborted)
    await worker.claimOnce()
    expect(await worker.finishOnce()).toBe(false)
    end()
    await until(() => worker.running === 0, 'it has ended')
    expect((await findJob(db, id))?.state).toBe('running')
    await worker.finishOnce()
    expect((await findJob(db, id))?.state).toBe('succeeded')
    expect(await listAttempts(db, id)).toMatchObject([{ worker: worker.name }])
  })
})
