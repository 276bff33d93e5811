import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import { describe, expect, test } from 'vitest'
import { transaction } from '../../../src/db/transaction.ts'
import { useDatabase } from '../../../test/support/database.ts'
import { until } from '../../../test/support/until.ts'
import { insertJobs } from '../enqueue.ts'
import { handle, type JobHandler, job } from '../job.ts'
import { claimQuery } from '../store.ts'
import type { Db, JobState } from '../tables.ts'
import { useClaims } from './support/claims.ts'
import { enqueue, useJobs } from './support/jobs.ts'
import { readsOf } from './support/reads.ts'

const report = job<null>('test.report', { queue: 'slow' })
const mail = job<null>('test.mail', { queue: 'mail' })
const other = job<null>('test.other')
const nulls = (count: number) => Array.from({ length: count }, () => null)

async function useQueues(options: { queues: Record<string, number>; handlers: JobHandler[] }) {
  const { database } = await useDatabase({ poolSize: 10 })
  const db = database.withSignal()
  const lines: Record<string, unknown>[] = []
  const log = pino({}, { write: (line: string) => void lines.push(JSON.parse(line)) })
  const { jobs } = useJobs(database, { log, ...options })
  const put = async (kind: typeof mail, count = 1) =>
    (await transaction(db, (trx) => jobs.enqueueMany(trx, kind, nulls(count)))).ids
  const stateOf = async (id = ''): Promise<JobState | undefined> => (await jobs.find(db, id))?.state
  const rowOf = async (queue: string) =>
    (await jobs.queues(db)).find((row) => row.queue === queue) ?? expect.unreachable()
  return { database, db, jobs, lines, put, stateOf, rowOf }
}

describe('a queue', () => {
  test('has places of its own: a mail starts within a second while reports occupy all theirs', async () => {
    const over = Promise.withResolvers<void>()
    const { put, stateOf, jobs } = await useQueues({
      queues: { '*': 5 },
      handlers: [handle(report, () => over.promise), handle(mail, () => {})],
    })
    await put(report, 50)
    await until(() => jobs.running === 5, 'all places for reports are taken')
    const [id] = await put(mail)
    await until(async () => (await stateOf(id)) === 'succeeded', 'the mail is sent', 1_000)
    expect(jobs.running).toBe(5)
    over.resolve()
  })

  test('runs as many jobs as its setting says, and * stands for the others', async () => {
    const over = Promise.withResolvers<void>()
    const wait = () => over.promise
    const { put, rowOf, jobs } = await useQueues({
      queues: { mail: 3, '*': 1 },
      handlers: [handle(report, wait), handle(mail, wait), handle(other, wait)],
    })
    for (const kind of [report, mail, other]) await put(kind, 5)
    await until(() => jobs.running === 5, 'the places are taken')
    expect(await rowOf('mail')).toMatchObject({ running: 3, queued: 2 })
    expect(await rowOf('slow')).toMatchObject({ running: 1, queued: 4 })
    expect(await rowOf('default')).toMatchObject({ running: 1, queued: 4 })
    over.resolve()
  })

  test('that the setting leaves out is left to other processes, which shows', async () => {
    const handlers = [handle(report, () => {}), handle(mail, () => {})]
    const { database, put, stateOf, rowOf, lines } = await useQueues({
      queues: { mail: 1, typo: 1 },
      handlers,
    })
    const [left] = await put(report)
    const [sent] = await put(mail)
    await until(async () => (await stateOf(sent)) === 'succeeded', 'the mail is sent')
    await until(async () => (await rowOf('mail')).isRun, 'its queue is run')
    expect(await rowOf('slow')).toMatchObject({ isRun: false, queued: 1 })
    expect(await stateOf(left)).toBe('queued')
    const texts = lines.map(({ msg, queue, queues }) => [msg, queue ?? queues])
    expect(texts).toContainEqual(['No job is declared with this queue', 'typo'])
    expect(texts).toContainEqual([
      'Leaving the jobs of these queues to other processes',
      expect.arrayContaining(['slow']),
    ])
    useJobs(database, { queues: { slow: 1 }, handlers })
    await until(async () => (await stateOf(left)) === 'succeeded', 'another process runs it')
    expect(await rowOf('slow')).toMatchObject({ isRun: true, queued: 0 })
  })

  test('is that of the declaration, whatever it was when the job was enqueued', async () => {
    const moved = job<null>('test.moved', { queue: 'elsewhere' })
    const { put, stateOf, rowOf } = await useQueues({
      queues: { elsewhere: 1 },
      handlers: [handle(moved, () => {})],
    })
    const [id] = await put(job<null>('test.moved'))
    await until(async () => (await stateOf(id)) === 'succeeded', 'it is run')
    expect(await rowOf('elsewhere')).toMatchObject({ isRun: true })
  })

  test('with the name of a property of objects has no places without a setting', async () => {
    const odd = job<null>('test.odd', { queue: 'constructor' })
    const { put, rowOf } = await useQueues({
      queues: { default: 1 },
      handlers: [handle(odd, () => {})],
    })
    await put(odd)
    expect(await rowOf('constructor')).toMatchObject({ isRun: false, queued: 1 })
  })
})

const findLastStart = async (db: Db, kind: string) => {
  const starts = db.selectFrom('job').select(({ fn }) => fn.max('started_at').as('last'))
  return (await starts.where('kind', '=', kind).executeTakeFirstOrThrow()).last as Date
}

describe('a paused queue', () => {
  test('starts no more jobs in any process within a second, and goes on when it is resumed', async () => {
    const handlers = [handle(mail, () => sleep(50)), handle(other, () => {})]
    const { database, db, jobs, put, stateOf, rowOf } = await useQueues({
      queues: { '*': 2 },
      handlers,
    })
    const { jobs: there } = useJobs(database, { queues: { '*': 2 }, handlers })
    await put(mail, 500)
    await until(() => jobs.running > 0 && there.running > 0, 'both run some')
    await jobs.pauseQueue(db, 'mail')
    const pausedAt = (await rowOf('mail')).pausedAt as Date
    const [id] = await put(other)
    await until(async () => (await stateOf(id)) === 'succeeded', 'other queues go on')
    await until(() => Date.now() - pausedAt.getTime() > 1_200, 'a second has passed')
    const { queued } = await until(async () => {
      const row = await rowOf('mail')
      return row.running === 0 ? row : undefined
    }, 'what ran has ended')
    expect(queued).toBeGreaterThan(0)
    expect((await findLastStart(db, mail.name)).getTime() - pausedAt.getTime()).toBeLessThan(1_000)
    await jobs.pauseQueue(db, 'mail')
    expect(await rowOf('mail')).toMatchObject({ pausedAt, queued, running: 0 })
    await there.resumeQueue(db, 'mail')
    expect(await rowOf('mail')).toMatchObject({ pausedAt: null })
    await until(async () => (await rowOf('mail')).queued < queued, 'it goes on')
  })

  test('is one that a process or a job names', async () => {
    const { db, jobs, rowOf } = await useQueues({ queues: {}, handlers: [] })
    await expect(jobs.pauseQueue(db, 'nowhere')).rejects.toMatchObject({
      code: 'not_found',
      message: 'There is no queue nowhere',
    })
    const unknown = job<null>('test.unknown', { queue: 'theirs' })
    await transaction(db, (trx) => insertJobs(trx, unknown, nulls(2)))
    await jobs.pauseQueue(db, 'theirs')
    expect(await rowOf('theirs')).toMatchObject({
      queued: 2,
      isRun: false,
      pausedAt: expect.any(Date),
    })
  })
})

describe('a claim', () => {
  test('is not delayed by 50 000 jobs of a kind without a handler, nor by those of other queues', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    for (const kind of [job<null>('test.a-unknown'), report])
      await transaction(db, (trx) => insertJobs(trx, kind, nulls(25_000), { priority: -5 }))
    await transaction(db, (trx) => insertJobs(trx, other, nulls(5)))
    const { rows, reads } = await readsOf(db, claimQuery(other.name, 5))
    expect(rows).toHaveLength(5)
    expect(reads).toBeLessThanOrEqual(6)
    const { claim } = useClaims(db, [other, report])
    expect((await claim(5)).map(({ kind }) => kind)).toEqual(Array(5).fill(other.name))
  })

  test('takes the most urgent of all kinds first, and then the oldest', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const [first, second] = [job<null>('test.first'), job<null>('test.second')]
    const put = async (kind: typeof mail, priority: number) =>
      (await transaction(db, (trx) => insertJobs(trx, kind, [null, null], { priority }))).ids
    const urgent = await put(second, -1)
    const usual = [...(await put(first, 0)), ...(await put(second, 0))].toSorted()
    const late = await put(first, 1)
    const { claim } = useClaims(db, [first, second])
    const claimed: string[] = []
    for (let turn = 0; turn < 8; turn++) claimed.push(...(await claim(1)).map(({ id }) => id))
    expect(claimed).toEqual([...urgent, ...usual, ...late])
  })
})

test('a worker rests while other processes have all jobs locked', async () => {
  const { database } = await useDatabase()
  const db = database.withSignal()
  await transaction(db, (trx) => insertJobs(trx, other, nulls(600)))
  const { claims } = useClaims(db, [other])
  const rooms = new Map([['default', 600]])
  await transaction(db, async (trx) => {
    await claimQuery(other.name, 600).execute(trx)
    for (let more = true, turn = 0; more; turn++) {
      const claimed = await claims.claim(rooms)
      more = claimed.more
      expect(claimed.claims).toEqual([])
      expect(turn).toBeLessThan(3)
    }
  })
})

test('a mail that another process enqueued is found while the other queues are busy', async () => {
  const handlers = [handle(other, () => sleep(1)), handle(mail, () => {})]
  const { database, put, stateOf, rowOf } = await useQueues({ queues: { '*': 5 }, handlers })
  const { jobs: elsewhere } = useJobs(database, { queues: {} })
  await put(other, 2_000)
  const { id } = await enqueue({ database, jobs: elsewhere }, mail, null)
  await until(async () => (await stateOf(id)) === 'succeeded', 'the mail is sent')
  expect((await rowOf('default')).queued).toBeGreaterThan(0)
})
