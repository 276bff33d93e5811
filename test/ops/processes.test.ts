import { insertJob, toNewJob } from '@offloop/jobs/enqueue'
import { handle, job } from '@offloop/jobs/job'
import { sql } from 'kysely'
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import type { Database, Db } from '../../src/db/database.ts'
import { transaction } from '../../src/db/transaction.ts'
import { feature } from '../../src/feature.ts'
import { createRouter } from '../../src/http/router.ts'
import { openService } from '../../src/main.ts'
import type { OpsSample } from '../../src/ops/live-samples.ts'
import { Processes, uniqueProcessId } from '../../src/ops/processes.ts'
import { useDatabase } from '../support/database.ts'
import { useProcess } from '../support/process.ts'
import { request, useService } from '../support/service.ts'
import { until } from '../support/until.ts'

let database: Database
let db: Db

beforeEach(async () => {
  ;({ database } = await useDatabase())
  db = database.withSignal()
})

test('the id of a process is unique, also among those of one host with the same number', () => {
  const [one, other] = [uniqueProcessId(), uniqueProcessId()]
  expect(one).toMatch(new RegExp(`^[\\w.-]+:${process.pid}:[0-9a-f]{8}$`))
  expect(one).not.toBe(other)
})

describe('a process', () => {
  test('is listed as it was when it was last seen', async () => {
    const { processes } = open('one', { sample: sample({ running: 2, queued: 3 }), jobs: 1 })
    await processes.renew()
    expect(await processes.list(db)).toEqual({
      totals: expect.objectContaining({ alive: 1, dead: 0 }),
      processes: [
        {
          id: 'one',
          role: 'all',
          node: process.version,
          url: null,
          startedAt: expect.any(String),
          seenAt: expect.any(String),
          isAlive: true,
          load: {
            utilization: 0.25,
            p99: 12,
            cpu: 0.5,
            rss: 100,
            threads: 4,
            busyThreads: 2,
            queued: 3,
            jobs: 1,
            sockets: 5,
            requestsPerSecond: 7.5,
          },
        },
      ],
      leftOut: 0,
    })
  })

  test('is listed from its start on, before its first second has passed', async () => {
    const { processes } = open('one')
    await processes.renew()
    const [listed] = (await processes.list(db)).processes
    expect(listed).toMatchObject({ isAlive: true, load: null })
    const startedAt = Date.parse(listed?.startedAt ?? '')
    expect(Math.abs(startedAt - performance.timeOrigin)).toBeLessThan(2_000)
  })

  test('stays one row, whose sample and time are renewed', async () => {
    const { processes, samples } = open('one')
    await processes.renew()
    await age('one', 10)
    const [before] = (await processes.list(db)).processes
    samples.push(sample({ running: 1 }))
    await processes.renew()
    const { processes: all } = await processes.list(db)
    expect(all).toMatchObject([{ id: 'one', startedAt: before?.startedAt, load: { p99: 12 } }])
    const renewedBy = Date.parse(all[0]?.seenAt ?? '') - Date.parse(before?.seenAt ?? '')
    expect(renewedBy).toBeGreaterThanOrEqual(10_000)
  })

  test('is dead when it was not seen for 15 s, and alive again when it is', async () => {
    const { processes } = open('one')
    await processes.renew()
    expect(await listAfter(14.9, 'one', processes)).toMatchObject({
      totals: { alive: 1, dead: 0 },
      processes: [{ id: 'one', isAlive: true }],
    })
    await age('one', 15)
    expect(await processes.list(db)).toMatchObject({
      totals: { alive: 0, dead: 1 },
      processes: [{ id: 'one', isAlive: false }],
    })
    await processes.renew()
    expect((await processes.list(db)).processes).toMatchObject([{ id: 'one', isAlive: true }])
  })

  test('that was killed is forgotten an hour later by another', async () => {
    await open('old').processes.renew()
    await open('older').processes.renew()
    await age('old', 3_540)
    await age('older', 3_610)
    const { processes } = open('new')
    await processes.renew()
    expect(await listIds(processes)).toEqual(['new', 'old'])
  })

  test('that cannot reach its row says so once, goes on, and says when it can', async () => {
    const { processes, log } = open('one')
    await sql`rename table process to process_away`.execute(db)
    await processes.renew()
    await processes.renew()
    expect(log).toEqual(['Cannot renew the row of this process: others take it for dead meanwhile'])
    await sql`rename table process_away to process`.execute(db)
    await processes.renew()
    expect(log).toEqual([expect.any(String), 'This process is listed again'])
    expect(await listIds(processes)).toEqual(['one'])
  })
})

describe('several processes', () => {
  test('are listed with those that are dead last, and their load in sum without them', async () => {
    const samples = [sample({ running: 1, queued: 2 }), sample({ running: 3 }), sample({})]
    for (const [index, id] of ['dead', 'one', 'two'].entries())
      await open(id, { sample: samples[index], jobs: index }).processes.renew()
    await age('dead', 16)
    const { totals, processes } = await open('').processes.list(db)
    expect(processes.map(({ isAlive }) => isAlive)).toEqual([true, true, false])
    expect(processes.at(-1)?.id).toBe('dead')
    expect(totals).toEqual({
      alive: 2,
      dead: 1,
      cpu: 1,
      rss: 200,
      threads: 8,
      busyThreads: 3,
      queued: 0,
      jobs: 3,
      sockets: 10,
      requestsPerSecond: 15,
    })
  })

  test('beyond 64 are only counted', async () => {
    for (let index = 0; index < 70; index++) await open(`p${index}`).processes.renew()
    const { totals, processes, leftOut } = await open('').processes.list(db)
    expect([totals.alive, processes.length, leftOut]).toEqual([70, 64, 6])
  })
})

describe('when it stops', () => {
  test('a process is deleted, and not brought back by a renewal that is under way', async () => {
    const { processes } = open('one')
    processes.start('http://localhost:1')
    await processes.stop()
    await processes.stop()
    expect(await listIds(processes)).toEqual([])
  })

  test('a process that crashes stays, so that people see it dead', async () => {
    const { processes } = open('one')
    processes.start('http://localhost:1')
    await until(async () => (await listIds(processes)).length === 1, 'it is listed')
    await processes.stop(true)
    expect((await processes.list(db)).processes).toMatchObject([{ url: 'http://localhost:1' }])
  })

  test('a database that hangs delays it by a second at most', async () => {
    const { processes, log } = open('one')
    await processes.renew()
    const hold = Promise.withResolvers<void>()
    const held = db.transaction().execute(async (trx) => {
      await sql`select id from process for update`.execute(trx)
      processes.start(undefined)
      const stoppedAt = performance.now()
      await processes.stop()
      // Less than MySQL waits for a lock.
      expect(performance.now() - stoppedAt).toBeLessThan(20_000)
      hold.resolve()
    })
    await Promise.all([held, hold.promise])
    expect(log.at(-1)).toBe('Cannot delete the row of this process: others take it for dead')
  })
})

describe('the service', () => {
  test('lists its processes of every role, each with the name that its jobs have', async () => {
    const { url, databaseUrl, database: own } = await useService({}, openWithJob)
    const worker = useProcess('src/main.ts', { DATABASE_URL: databaseUrl, ROLE: 'worker' })
    const list = async () => (await request(`${url}/v1/ops/processes`)).body
    const { processes, totals } = await until(async () => {
      const body = await list()
      const isComplete = body.processes.every(({ load }: { load: unknown }) => load)
      return body.totals.alive === 2 && isComplete ? body : undefined
    }, 'both are there with their load')
    expect(processes).toMatchObject([
      { role: 'all', url, isAlive: true },
      { role: 'worker', url: worker.opsUrl(), isAlive: true },
    ])
    expect(totals.rss).toBe(processes[0].load.rss + processes[1].load.rss)
    const { body: ops } = await request(`${url}/v1/ops`)
    expect(ops.process).toBe(processes[0].id)

    await transaction(own.withSignal(), (trx) => insertJob(trx, toNewJob(doNothing, null)))
    const findWorker = () =>
      own.withSignal().selectFrom('job_attempt').select('worker').executeTakeFirst()
    expect(await until(findWorker, 'a job has run')).toEqual({ worker: ops.process })

    worker.child.kill('SIGTERM')
    await worker.exitCode
    expect((await list()).processes).toMatchObject([{ role: 'all' }])
  })
})

const doNothing = job<null>('test.do-nothing')

const openWithJob = (env: NodeJS.ProcessEnv) =>
  openService(env, [
    feature({
      name: 'test',
      path: '/v1/test',
      routes: () => createRouter(),
      jobs: () => [handle(doNothing, () => undefined)],
    }),
  ])

/** A process as far as others see it, which is renewed by the test. */
function open(id: string, options: { sample?: OpsSample | undefined; jobs?: number } = {}) {
  const log: string[] = []
  const note = (...[, text]: unknown[]) => void log.push(String(text))
  const samples = options.sample ? [options.sample] : []
  const processes = new Processes({
    id,
    role: 'all',
    database,
    samples: { all: samples },
    compute: { threads: 4 },
    jobs: { running: options.jobs ?? 0 },
    log: { warn: note, info: (text: unknown) => void log.push(String(text)) },
  })
  onTestFinished(() => processes.stop(true))
  return { processes, samples, log }
}

const sample = (compute: { running?: number; queued?: number }) =>
  ({
    loop: { p99: 12, utilization: 0.25 },
    http: { requestsPerSecond: 7.5 },
    compute: { running: 0, queued: 0, ...compute },
    memory: { rss: 100 },
    cpu: 0.5,
    sockets: 5,
  }) as OpsSample

/** As if the process had been seen so much earlier. */
const age = (id: string, seconds: number) =>
  sql`update process set seen_at = seen_at - interval ${seconds} second where id = ${id}`.execute(
    db,
  )

/** Lists as if the process had been seen exactly so much earlier, whatever the time is. */
const listAfter = (seconds: number, id: string, processes: Processes) =>
  db.connection().execute(async (connection) => {
    const seen = sql`(select unix_timestamp(seen_at) from process where id = ${id})`
    await sql`set timestamp = ${seen} + ${seconds}`.execute(connection)
    const list = await processes.list(connection)
    await sql`set timestamp = default`.execute(connection)
    return list
  })

const listIds = async (processes: Processes) =>
  (await processes.list(db)).processes.map(({ id }) => id)
