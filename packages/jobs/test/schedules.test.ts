import { sql } from 'kysely'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import type { Database } from '../../../src/db/database.ts'
import { useDatabase } from '../../../test/support/database.ts'
import { until } from '../../../test/support/until.ts'
import { pruneSlots } from '../cleanup.ts'
import { handle, job, schedule } from '../job.ts'
import type { Db } from '../tables.ts'
import { enqueue, useJobs } from './support/jobs.ts'
import { useMaintenance } from './support/maintenance.ts'

const sweep = job<{ of: string }>('test.sweep')
const daily = schedule('test.daily', '0 3 * * *', sweep, { of: 'files' })

const insertSlot = (database: Database, ago: string) =>
  sql`insert into job_slot (schedule, slot) values (${daily.name}, date_format(now() - interval ${sql.raw(ago)}, '%Y-%m-%d 03:00:00'))`.execute(
    database.withSignal(),
  )

/** Maintenance of one process, driven by the test. */
const useSchedules = (database: Database, schedules = [daily]) =>
  useMaintenance(database.withSignal(), schedules)

const slotsOf = (database: Database) =>
  database.withSignal().selectFrom('job_slot').selectAll().orderBy('slot').execute()

describe('a schedule', () => {
  test('that is new waits for its next slot', async () => {
    const { database } = await useDatabase()
    const { fired, maintenance } = useSchedules(database)
    await maintenance.fireSchedules()
    expect(fired).toEqual([])
    const [{ slot } = {}] = await slotsOf(database)
    expect(slot?.toISOString()).toMatch(/T03:00:00\.000Z$/)
    expect(Date.now() - Number(slot)).toBeLessThan(86_400_000)
  })

  test('makes up for the slots that it missed by firing the last of them', async () => {
    const { database } = await useDatabase()
    const { fired, maintenance } = useSchedules(database)
    await insertSlot(database, '9 day')
    await maintenance.runOnce()
    await maintenance.runOnce()
    expect(fired).toEqual(['test.daily'])
    expect(await slotsOf(database)).toHaveLength(2)
  })

  test('fires a slot once, however many processes find it due at once', async () => {
    const { database } = await useDatabase({ poolSize: 10 })
    const processes = Array.from({ length: 8 }, () => useSchedules(database))
    await insertSlot(database, '3 day')
    await Promise.all(processes.map(({ maintenance }) => maintenance.fireSchedules()))
    expect(processes.flatMap(({ fired }) => fired)).toEqual(['test.daily'])
  })

  test('puts its job into the queue, second by second if need be', async () => {
    const { database } = await useDatabase()
    const done: string[] = []
    const handlers = [handle(sweep, ({ of }) => void done.push(of))]
    const schedules = [schedule('test.often', '* * * * * *', sweep, { of: 'uploads' })]
    const processes = [1, 2].map(() =>
      useJobs(database, { handlers, schedules, timing: { pollMs: 50 } }),
    )
    await until(() => done.length >= 3, 'it was fired')
    await Promise.all(processes.map(({ jobs }) => jobs.stop()))
    const rows = await database
      .withSignal()
      .selectFrom('job')
      .select('id')
      .where('kind', '=', sweep.name)
      .execute()
    const slots = (await slotsOf(database)).filter((row) => row.job_id !== null)
    // A slot has the job of an earlier one if that is unfinished.
    expect(new Set(slots.map((row) => row.job_id))).toEqual(new Set(rows.map(({ id }) => id)))
    expect(new Set(done)).toEqual(new Set(['uploads']))
  })

  test('is listed with its next slot, and its last with the job that it enqueued', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const often = schedule('test.often', '* * * * * *', sweep, { of: 'uploads' })
    const handlers = [handle(sweep, () => {})]
    const timing = { pollMs: 50 }
    const { jobs } = useJobs(database, { handlers, schedules: [often, daily], timing })
    const list = async () => (await jobs.schedules(db)).slice(-2)
    const [first, second] = await until(async () => {
      const schedules = await list()
      return schedules[0]?.lastRun?.state === 'succeeded' ? schedules : undefined
    }, 'one has run')
    expect(first).toMatchObject({ name: 'test.often', kind: sweep.name, cron: '* * * * * *' })
    expect(second).toMatchObject({ name: 'test.daily', lastRun: null })
    expect(second?.nextRun?.toISOString()).toMatch(/T03:00:00/)
    const lastRun = (first as NonNullable<typeof first>).lastRun
    expect(await jobs.find(db, lastRun?.jobId ?? '')).toMatchObject({ kind: sweep.name })
  })

  test('leaves out its slots while the job of an earlier one is unfinished', async () => {
    const { database } = await useDatabase()
    const over = Promise.withResolvers<void>()
    let begun = 0
    const handlers = [
      handle(sweep, async () => {
        begun++
        await over.promise
      }),
    ]
    const schedules = [schedule('test.long', '* * * * * *', sweep, { of: 'uploads' })]
    useJobs(database, { handlers, schedules, timing: { pollMs: 50 } })
    await until(() => begun === 1, 'the first has begun')
    await until(async () => (await slotsOf(database)).length >= 4, 'several slots have passed')
    const rows = await database
      .withSignal()
      .selectFrom('job')
      .select('id')
      .where('kind', '=', sweep.name)
      .execute()
    expect(rows).toHaveLength(1)
    expect(begun).toBe(1)
    over.resolve()
    await until(() => begun > 1, 'the next one begins after it')
  })

  test('is done even while long jobs have all places, in one that is kept for it', async () => {
    const { database } = await useDatabase()
    const over = Promise.withResolvers<void>()
    const long = job<null>('test.long')
    let swept = 0
    const handlers = [handle(long, () => over.promise), handle(sweep, () => void swept++)]
    const schedules = [schedule('test.often', '* * * * * *', sweep, { of: 'uploads' })]
    const { jobs } = useJobs(database, {
      handlers,
      schedules,
      concurrency: 2,
      timing: { pollMs: 50 },
    })
    for (let index = 0; index < 5; index++) await enqueue({ database, jobs }, long, null)
    await until(() => jobs.running === 2, 'all places are taken')
    await until(() => swept >= 3, 'the schedule goes on')
    expect(jobs.running).toBeLessThanOrEqual(3)
    over.resolve()
  })

  test('is fired by a process that runs its queue, and so has the place for it', async () => {
    const { database } = await useDatabase()
    const over = Promise.withResolvers<void>()
    const long = job<null>('test.long')
    let swept = 0
    const handlers = [handle(long, () => over.promise), handle(sweep, () => void swept++)]
    const schedules = [schedule('test.often', '* * * * * *', sweep, { of: 'uploads' })]
    const common = { handlers, schedules }
    const { jobs } = useJobs(database, { ...common, concurrency: 1, timing: { pollMs: 200 } })
    useJobs(database, { ...common, concurrency: 0, timing: { pollMs: 20 } })
    for (let index = 0; index < 3; index++) await enqueue({ database, jobs }, long, null)
    await until(() => jobs.running === 1, 'the place is taken')
    await until(() => swept >= 3, 'the schedule goes on')
    over.resolve()
  })

  test('whose job has no handler here does not stop the other jobs', async () => {
    const { database } = await useDatabase()
    const other = job<null>('test.other')
    let done = 0
    const { jobs } = useJobs(database, {
      handlers: [handle(other, () => void done++)],
      schedules: [schedule('test.often', '* * * * * *', sweep, { of: 'uploads' })],
      timing: { pollMs: 50 },
    })
    const fired = async () => (await slotsOf(database)).some((row) => row.job_id !== null)
    await until(fired, 'it was fired')
    await enqueue({ database, jobs }, other, null)
    await until(() => done === 1, 'the other job is done')
    const [left] = await jobs.list(database.withSignal(), { limit: 1, kind: sweep.name })
    expect(left).toMatchObject({ state: 'queued', attempt: 0 })
  })

  test.each(['0 0 30 2 *', '0 0 31 2,4,6,9,11 *', '0 0 0 30 2 *'])(
    'that never fires is refused: %s',
    async (cron) => {
      const { database } = await useDatabase()
      const never = schedule('test.never', cron, sweep, { of: 'nothing' })
      expect(() => useSchedules(database, [never])).toThrow('The schedule test.never never fires')
    },
  )

  test.each([
    '0 0 0 1 1 * 2001',
    '0 0 0 1 1 * 2099',
    '2099-01-01T00:00:00',
    '* * * *',
    '',
    '61 * * * *',
    '@reboot',
  ])('that is no recurring time is refused: %s', async (cron) => {
    const { database } = await useDatabase()
    const odd = schedule('test.odd', cron, sweep, { of: 'nothing' })
    expect(() => useSchedules(database, [odd])).toThrow()
  })

  test('whose input no job can have is refused, since it would keep others from being fired', async () => {
    const { database } = await useDatabase()
    const large = schedule('test.large', '@daily', sweep, { of: 'x'.repeat(70_000) })
    expect(() => useSchedules(database, [large])).toThrow('The input of test.sweep has')
  })

  test('is in UTC, whatever the time zone of the process', async () => {
    const { database } = await useDatabase()
    vi.stubEnv('TZ', 'America/New_York')
    onTestFinished(() => void vi.unstubAllEnvs())
    await useSchedules(database).maintenance.fireSchedules()
    const [{ slot } = {}] = await slotsOf(database)
    expect(slot?.toISOString()).toMatch(/T03:00:00\.000Z$/)
  })

  test('forgets thousands of old slots, but the newest of each schedule', async () => {
    const { database } = await useDatabase()
    const start = Date.now() - 30 * 86_400_000
    for (const name of ['test.often', 'test.other'])
      await database
        .withSignal()
        .insertInto('job_slot')
        .values(
          Array.from({ length: 2_500 }, (_, index) => ({
            schedule: name,
            slot: new Date(start + index * 1_000),
          })),
        )
        .execute()
    await pruneSlots(() => database.withSignal())
    expect((await slotsOf(database)).map((row) => row.schedule)).toEqual([
      'test.often',
      'test.other',
    ])
  })

  test('keeps its newest slot for good, older ones for a week', async () => {
    const { database } = await useDatabase()
    for (const ago of ['30 day', '20 day', '3 day']) await insertSlot(database, ago)
    await pruneSlots(() => database.withSignal())
    expect(await slotsOf(database)).toHaveLength(1)
    await sql`update job_slot set slot = slot - interval 1 year`.execute(database.withSignal())
    await pruneSlots(() => database.withSignal())
    expect(await slotsOf(database)).toHaveLength(1)
  })

  test('with a wrong expression, or the name of another, is refused at the start', async () => {
    const { database } = await useDatabase()
    expect(() =>
      useSchedules(database, [schedule('test.bad', 'every day', sweep, { of: '' })]),
    ).toThrow()
    expect(() => useSchedules(database, [daily, daily])).toThrow(
      'Two schedules have one name: test.daily',
    )
  })
})

describe('a time zone', () => {
  const inBerlin = (cron: string) =>
    schedule('test.berlin', cron, sweep, { of: 'files' }, { timeZone: 'Europe/Berlin' })

  /** The slots that fire between two times, looked for every ten minutes as a process does. */
  async function fireAll(cron: string, from: string, to: string) {
    const { database } = await useDatabase({ poolSize: 1 })
    const db = database.withSignal()
    const { maintenance } = useMaintenance(db, [inBerlin(cron)])
    const clock = Date.parse(from)
    await setClock(db, new Date(clock - 1_000))
    await maintenance.fireSchedules()
    for (let at = clock; at <= Date.parse(to); at += 600_000) {
      await setClock(db, new Date(at))
      await maintenance.fireSchedules()
    }
    await sql`set timestamp = default`.execute(db)
    const slots = (await slotsOf(database)).filter((row) => row.job_id !== null)
    return slots.map(({ slot }) => slot.toISOString().slice(5, 16))
  }

  /** Of the session, of which the pool has one. */
  const setClock = (db: Db, time: Date) =>
    sql`set timestamp = ${sql.lit(time.getTime() / 1_000)}`.execute(db)

  test('decides when it fires, in summer and in winter', async () => {
    expect(await fireAll('0 3 * * *', '2026-03-27T12:00Z', '2026-03-30T12:00Z')).toEqual([
      '03-28T02:00',
      '03-29T01:00',
      '03-30T01:00',
    ])
  })

  test('that skips an hour fires what lies in it once, right after it', async () => {
    expect(await fireAll('30 2 * * *', '2026-03-28T12:00Z', '2026-03-30T12:00Z')).toEqual([
      '03-29T01:00',
      '03-30T00:30',
    ])
  })

  test('that repeats an hour fires what lies in it once', async () => {
    expect(await fireAll('30 2 * * *', '2026-10-24T12:00Z', '2026-10-26T12:00Z')).toEqual([
      '10-25T00:30',
      '10-26T01:30',
    ])
  })

  test('that repeats an hour fires what is due every half hour in both', async () => {
    expect(await fireAll('*/30 * * * *', '2026-10-25T00:00Z', '2026-10-25T02:00Z')).toEqual([
      '10-25T00:00',
      '10-25T00:30',
      '10-25T01:00',
      '10-25T01:30',
      '10-25T02:00',
    ])
  })

  test.each(['Europe/Bern', '', 'summer'])('that there is not is refused: %j', (timeZone) => {
    expect(() => schedule('test.lost', '@daily', sweep, { of: '' }, { timeZone })).toThrow(
      'Expected `timeZone` of the schedule test.lost to be an IANA time zone such as Europe/Berlin',
    )
  })
})

describe('a paused schedule', () => {
  async function usePaused() {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const [first, second] = [1, 2].map(() => useSchedules(database)) as [Driven, Driven]
    await insertSlot(database, '3 day')
    await first.maintenance.pause(db, daily.name)
    return { database, db, first, second }
  }

  test('leaves out its slots in all processes', async () => {
    const { database, first, second } = await usePaused()
    for (const { maintenance } of [first, second]) await maintenance.fireSchedules()
    expect([...first.fired, ...second.fired]).toEqual([])
    expect(await slotsOf(database)).toHaveLength(1)
  })

  test('that is resumed does not make up for them, but fires the next', async () => {
    const { database, db, first, second } = await usePaused()
    await second.maintenance.resume(db, daily.name)
    await useSchedules(database).maintenance.fireSchedules()
    const later = useSchedules(database)
    await later.maintenance.fireSchedules()
    expect(later.fired).toEqual([])
    await sql`update job_schedule set resumed_at = resumed_at - interval 2 day`.execute(db)
    await first.maintenance.fireSchedules()
    expect(first.fired).toEqual([daily.name])
  })

  test('keeps the time at which it was resumed when it is resumed again', async () => {
    const { db, first } = await usePaused()
    await first.maintenance.resume(db, daily.name)
    await sql`update job_schedule set resumed_at = resumed_at - interval 2 day`.execute(db)
    await first.maintenance.resume(db, daily.name)
    await first.maintenance.fireSchedules()
    expect(first.fired).toEqual([daily.name])
  })

  test('still runs by hand, and is listed as paused without a next run', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const handlers = [handle(sweep, () => {})]
    const { jobs } = useJobs(database, { handlers, schedules: [daily] })
    await jobs.pauseSchedule(db, daily.name)
    const { id } = await jobs.runSchedule(db, daily.name, { subject: 'account:7' })
    const done = async () => (await jobs.find(db, id))?.state === 'succeeded'
    await until(done, 'it is done')
    expect(await jobs.find(db, id)).toMatchObject({ kind: sweep.name, subject: 'account:7' })
    expect(await jobs.schedules(db)).toMatchObject([
      { isPaused: true, nextRun: null, lastRun: { jobId: id, state: 'succeeded' } },
    ])
    await jobs.resumeSchedule(db, daily.name)
    expect(await jobs.schedules(db)).toMatchObject([{ isPaused: false, nextRun: expect.any(Date) }])
  })

  test('and one that runs by hand must exist', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const { jobs } = useJobs(database)
    const missing = { code: 'not_found', message: 'There is no schedule test.none' }
    await expect(jobs.runSchedule(db, 'test.none')).rejects.toMatchObject(missing)
    await expect(jobs.pauseSchedule(db, 'test.none')).rejects.toMatchObject(missing)
    await expect(jobs.resumeSchedule(db, 'test.none')).rejects.toMatchObject(missing)
  })
})

type Driven = ReturnType<typeof useSchedules>
