import { AsyncLocalStorage } from 'node:async_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'kysely'
import { pino } from 'pino'
import { describe, expect, test } from 'vitest'
import { transaction } from '../../../src/db/transaction.ts'
import { AppError } from '../../../src/errors.ts'
import { onServer, useDatabase } from '../../../test/support/database.ts'
import { until } from '../../../test/support/until.ts'
import { usePool } from '../../workpool/test/support/pool.ts'
import { endlessly } from '../../workpool/test/support/tasks.ts'
import { handle, type JobChange, job } from '../job.ts'
import { enqueue, useJobs } from './support/jobs.ts'

const add = job<{ a: number; b: number }, number>('test.add')
const adding = handle(add, ({ a, b }) => a + b)

describe('a job', () => {
  test('runs, and its row has the result', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const { jobs, statesOf } = useJobs(database, { handlers: [adding] })
    const { id } = await enqueue({ database, jobs }, add, { a: 1, b: 2 }, { requestId: 'r-1' })
    await until(() => statesOf(id).includes('succeeded'), 'it is done')
    expect(await jobs.find(db, id)).toMatchObject({
      id,
      kind: 'test.add',
      state: 'succeeded',
      result: 3,
      progress: 1,
      attempt: 1,
      error: null,
    })
    expect(statesOf(id)).toEqual(['queued', 'running', 'succeeded'])
    expect(await jobs.attempts(db, id)).toMatchObject([
      { attempt: 1, outcome: 'succeeded', error: null },
    ])
  })

  test('exists only if the transaction that enqueued it commits', async () => {
    const { database } = await useDatabase()
    const { jobs, changes } = useJobs(database, { handlers: [adding] })
    const failing = transaction(database.withSignal(), async (trx) => {
      await jobs.enqueue(trx, add, { a: 1, b: 2 })
      throw new Error('changed my mind')
    })
    await expect(failing).rejects.toThrow('changed my mind')
    expect(await jobs.list(database.withSignal(), { limit: 1 })).toEqual([])
    expect(changes).toEqual([])
  })

  test('keeps its lease and writes its result while requests wait for every connection', async () => {
    const { database } = await useDatabase({ poolSize: 2 })
    const over = Promise.withResolvers<void>()
    const waiting = job<null>('test.waiting')
    const handlers = [handle(waiting, () => over.promise)]
    const timing = { pollMs: 50, watchMs: 50, heartbeatMs: 200, leaseMs: 1_500 }
    const { jobs, statesOf } = useJobs(database, { handlers, timing })
    const { id } = await enqueue({ database, jobs }, waiting, null)
    await until(() => statesOf(id).includes('running'), 'it runs')

    const leaving = new AbortController()
    const request = () => sql`select sleep(60)`.execute(database.withSignal(leaving.signal))
    const requests = Promise.allSettled(Array.from({ length: 50 }, request))
    const reserved = database.withSignal(undefined, { reserved: true })
    const lease = async () =>
      Number(
        (
          await reserved
            .selectFrom('job')
            .select('due_at')
            .where('id', '=', id)
            .executeTakeFirstOrThrow()
        ).due_at,
      )
    const first = await lease()
    await until(async () => (await lease()) > first + 2_000, 'the lease lasts longer than it did')
    over.resolve()
    await until(() => statesOf(id).includes('succeeded'), 'its end is written')
    expect(statesOf(id)).toEqual(['queued', 'running', 'succeeded'])
    leaving.abort()
    await requests
  })

  test('is left to its worker by a process that starts after an outage in which the lease expired', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const over = Promise.withResolvers<void>()
    const waiting = job<null>('test.waiting', { attempts: 1 })
    const handlers = [handle(waiting, () => over.promise)]
    const pace = { heartbeatMs: 500, maxBackoffMs: 2_000 }
    const { jobs, statesOf } = useJobs(database, {
      handlers,
      timing: { ...pace, watchMs: 50, pollMs: 60_000 },
    })
    const { id } = await enqueue({ database, jobs }, waiting, null)
    await until(() => statesOf(id).includes('running'), 'it runs')
    await db
      .updateTable('job')
      .set({ due_at: new Date(0) })
      .where('id', '=', id)
      .execute()

    const begun = useJobs(database, { handlers, timing: { ...pace, pollMs: 20 } })
    const lease = () =>
      db.selectFrom('job').select('due_at').where('id', '=', id).executeTakeFirstOrThrow()
    await until(async () => Number((await lease()).due_at) > 0, 'the lease is renewed')
    over.resolve()
    await until(() => statesOf(id).includes('succeeded'), 'its end is written')
    expect(begun.statesOf(id)).toEqual([])
  })

  test('that fails is retried until no attempts are left', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const broken = job<null>('test.broken', { attempts: 3, backoffMs: 1 })
    const handlers = [
      handle(broken, (_, { attempt }) => Promise.reject(new Error(`secret ${attempt}`))),
    ]
    const { jobs } = useJobs(database, { handlers, timing: { pollMs: 20 } })
    const { id } = await enqueue({ database, jobs }, broken, null)
    await until(async () => (await jobs.find(db, id))?.state === 'failed', 'it has failed')
    expect(await jobs.find(db, id)).toMatchObject({
      attempt: 3,
      error: 'Something went wrong on our side',
    })
    expect((await jobs.attempts(db, id)).map(({ error }) => error)).toEqual([
      'Error: secret 1',
      'Error: secret 2',
      'Error: secret 3',
    ])
  })

  test('whose error is not retryable fails at once, with its public message', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const hopeless = job<null>('test.hopeless')
    const handlers = [
      handle(hopeless, () => {
        throw new AppError('invalid', 'This is no CSV', { retryable: false })
      }),
    ]
    const publicMessage = (error: unknown) =>
      error instanceof AppError ? error.message : 'internal'
    const { jobs } = useJobs(database, { handlers, publicMessage })
    const { id } = await enqueue({ database, jobs }, hopeless, null)
    await until(async () => (await jobs.find(db, id))?.state === 'failed', 'it has failed')
    expect(await jobs.find(db, id)).toMatchObject({ attempt: 1, error: 'This is no CSV' })
  })
})

describe('enqueuing', () => {
  test('with the key of an unfinished job returns that one; once it is finished, a new one', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const { jobs } = useJobs(database, { concurrency: 0 })
    const first = await enqueue({ database, jobs }, add, { a: 1, b: 2 }, { dedupeKey: 'sum' })
    const again = await enqueue({ database, jobs }, add, { a: 3, b: 4 }, { dedupeKey: 'sum' })
    expect(again).toEqual(first)
    expect(
      (await enqueue({ database, jobs }, add, { a: 3, b: 4 }, { dedupeKey: 'other' })).id,
    ).not.toBe(first.id)
    await jobs.cancel(db, first.id)
    expect(
      (await enqueue({ database, jobs }, add, { a: 5, b: 6 }, { dedupeKey: 'sum' })).id,
    ).not.toBe(first.id)
    expect((await jobs.find(db, first.id))?.input).toEqual({ a: 1, b: 2 })
  })

  test('with the key of an unfinished job notifies of nothing', async () => {
    const { database } = await useDatabase()
    const { jobs } = useJobs(database, { concurrency: 0 })
    const seen: string[] = []
    jobs.onChange(({ id }) => seen.push(id))
    const { id } = await enqueue({ database, jobs }, add, { a: 1, b: 2 }, { dedupeKey: 'sum' })
    await enqueue({ database, jobs }, add, { a: 3, b: 4 }, { dedupeKey: 'sum' })
    expect(seen).toEqual([id])
  })

  test('from ten transactions at once with one key makes one job', async () => {
    const { database } = await useDatabase({ poolSize: 10 })
    const { jobs } = useJobs(database, { concurrency: 0 })
    const ids = await Promise.all(
      Array.from({ length: 10 }, () =>
        enqueue({ database, jobs }, add, { a: 1, b: 2 }, { dedupeKey: 'sum' }),
      ),
    )
    expect(new Set(ids.map(({ id }) => id)).size).toBe(1)
  })

  test('with keys that differ in any character makes a job for each', async () => {
    const { database } = await useDatabase()
    const { jobs } = useJobs(database, { concurrency: 0 })
    const put = async (dedupeKey: string) =>
      (await enqueue({ database, jobs }, add, { a: 1, b: 2 }, { dedupeKey })).id
    const keys = [
      'a',
      'a ',
      'a  ',
      ' a',
      'A',
      'á',
      'a\u0301',
      'a\u00a0',
      'a|',
      'a |',
      'a||',
      'a\t',
      '',
      ' ',
      'x'.repeat(200),
    ]
    const ids = []
    for (const key of keys) ids.push(await put(key))
    expect(new Set(ids).size).toBe(keys.length)
    for (const [index, key] of keys.entries()) expect(await put(key)).toBe(ids[index])
  })

  test('for a time far ahead waits for it, to the millisecond; for one that is past it queues at once', async () => {
    const { database } = await useDatabase()
    const { jobs } = useJobs(database, { concurrency: 0 })
    const put = async (runAt: Date) => {
      const { id } = await enqueue({ database, jobs }, add, { a: 1, b: 2 }, { runAt })
      return await jobs.find(database.withSignal(), id)
    }
    for (const time of [
      '2037-12-31T23:59:59.123Z',
      '2040-01-01T00:00:00.001Z',
      '3002-03-04T05:06:07.890Z',
      '9999-12-31T23:59:59.999Z',
    ])
      expect(await put(new Date(time))).toMatchObject({ state: 'scheduled', runAt: new Date(time) })
    for (const time of [new Date(0), new Date('1960-01-01'), new Date(-8_640_000_000_000_000)])
      expect(await put(time)).toMatchObject({ state: 'queued', runAt: null })
  })

  test('refuses an option that its column cannot hold', async () => {
    const { database } = await useDatabase()
    const { jobs } = useJobs(database, { concurrency: 0 })
    const put = (options: object) => enqueue({ database, jobs }, add, { a: 1, b: 2 }, options)
    await expect(put({ runAt: new Date(Number.NaN) })).rejects.toThrow(
      new TypeError('Expected `runAt` to be a valid Date, got Invalid Date'),
    )
    await expect(put({ runAt: '2040-01-01' })).rejects.toThrow(TypeError)
    await expect(put({ runAt: new Date('+010000-01-01T00:00:00Z') })).rejects.toThrow(RangeError)
    for (const priority of [1.5, Number.NaN, 32_768, -32_769, Number.POSITIVE_INFINITY, '1'])
      await expect(put({ priority })).rejects.toThrow(
        'Expected `priority` to be an integer from -32768 to 32767',
      )
    for (const dedupeKey of ['\ud800', 'a\udc00b', 7, null])
      await expect(put({ dedupeKey })).rejects.toThrow(TypeError)
    await expect(put({ dedupeKey: 'x'.repeat(201) })).rejects.toThrow(
      new RangeError('Expected `dedupeKey` to have at most 200 characters, got 201'),
    )
    for (const requestId of ['é', '', 'x'.repeat(129)])
      await expect(put({ requestId })).rejects.toThrow(TypeError)
    for (const subject of ['é', '', 'x'.repeat(65)])
      await expect(put({ subject })).rejects.toThrow('Expected `subject` to be 1 to 64 ASCII')
    for (const trace of ['é', '', 'x'.repeat(56)])
      await expect(put({ trace })).rejects.toThrow('Expected `trace` to be 1 to 55 ASCII')
    for (const priority of [-32_768, 32_767]) expect(await put({ priority })).toHaveProperty('id')
  })

  test('refuses what is too large, what JSON cannot represent, and a transaction without hooks', async () => {
    const { database } = await useDatabase()
    const { jobs } = useJobs(database, { concurrency: 0 })
    const anything = job<unknown>('test.anything')
    const put = (input: unknown) => enqueue({ database, jobs }, anything, input)
    await expect(put('x'.repeat(70_000))).rejects.toMatchObject({
      code: 'too_large',
      message:
        'The input of test.anything has 70002 bytes as JSON, the most is 65536: keep large data elsewhere',
    })
    await expect(put({ n: 1n })).rejects.toThrow(
      'The input of test.anything cannot be written as JSON',
    )
    await expect(put(() => 1)).rejects.toThrow(
      'The input of test.anything cannot be written as JSON',
    )
    const foreign = database
      .withSignal()
      .transaction()
      .execute((trx) => jobs.enqueue(trx, anything, 1))
    await expect(foreign).rejects.toThrow('Begin the transaction with transaction()')
    expect(await jobs.list(database.withSignal(), { limit: 1 })).toEqual([])
  })
})

describe('a handler', () => {
  test('receives id, attempt, request and subject, and its progress is written and published', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const stepping = job<null, unknown>('test.stepping')
    const goOn = Promise.withResolvers<void>()
    const handlers = [
      handle(stepping, async (_, { id, attempt, requestId, subject, progress }) => {
        progress(0.1, 'reading')
        progress(0.5, 'half')
        await goOn.promise
        return { id, attempt, requestId, subject }
      }),
    ]
    const { jobs, changes } = useJobs(database, { handlers, timing: { watchMs: 20 } })
    const from = { requestId: 'r-7', subject: 'account:7' }
    const { id } = await enqueue({ database, jobs }, stepping, null, from)
    await until(() => changes.some(({ progress }) => progress === 0.5), 'it is published')
    expect(await jobs.find(db, id)).toMatchObject({ state: 'running', progress: 0.5, note: 'half' })
    goOn.resolve()
    await until(async () => (await jobs.find(db, id))?.state === 'succeeded', 'it is done')
    expect(await jobs.find(db, id)).toMatchObject({
      progress: 1,
      ...from,
      result: { id, attempt: 1, ...from },
    })
    expect(changes.filter(({ progress }) => progress === 0.1)).toEqual([])
  })

  test('runs within what is around it, which knows the trace of who enqueued the job', async () => {
    const { database } = await useDatabase()
    const context = new AsyncLocalStorage<string>()
    const traced = job<null, unknown>('test.traced')
    let current: string | undefined = 'trace-1'
    const { jobs } = useJobs(database, {
      handlers: [handle(traced, (_, { trace }) => [trace, context.getStore()])],
      currentTrace: () => current,
      around: ({ id, kind, trace }, run) => context.run(`${kind} ${id} ${trace}`, run),
    })
    const put = (trace?: string) =>
      enqueue({ database, jobs }, traced, null, trace === undefined ? {} : { trace })
    const [implied, given] = [await put(), await put('trace-2')]
    current = undefined
    const none = await put()
    for (const [{ id }, trace] of [
      [implied, 'trace-1'],
      [given, 'trace-2'],
      [none, null],
    ] as const) {
      const find = () => jobs.find(database.withSignal(), id)
      await until(async () => (await find())?.state === 'succeeded', 'it is done')
      expect((await find())?.result).toEqual([trace, `test.traced ${id} ${trace}`])
    }
  })

  test('is aborted when its time is up, and the attempt fails even if it is unresponsive', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const unresponsive = job<null>('test.unresponsive', { attempts: 1, timeoutMs: 50 })
    const end = Promise.withResolvers<void>()
    const { jobs } = useJobs(database, { handlers: [handle(unresponsive, () => end.promise)] })
    const { id } = await enqueue({ database, jobs }, unresponsive, null)
    await until(async () => (await jobs.find(db, id))?.state === 'failed', 'it has failed')
    expect((await jobs.find(db, id))?.error).toBe('It was not done within 50 ms')
    expect(jobs.running).toBe(1)
    end.resolve()
    await until(() => jobs.running === 0, 'its place is free')
  })

  test.each([30 * 86_400_000, Number.POSITIVE_INFINITY])(
    'may take %d ms, which is more than a timer can wait',
    async (timeoutMs) => {
      const { database } = await useDatabase()
      const db = database.withSignal()
      const long = job<null>('test.long', { timeoutMs, attempts: 1 })
      const { jobs } = useJobs(database, {
        handlers: [handle(long, (_, { signal }) => sleep(100, undefined, { signal }))],
      })
      const { id } = await enqueue({ database, jobs }, long, null)
      await until(async () => (await jobs.find(db, id))?.finishedAt, 'it is over')
      expect(await jobs.find(db, id)).toMatchObject({ state: 'succeeded', attempt: 1 })
    },
  )

  test('that returns a result too large for its row fails at once', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const large = job<null, string>('test.large')
    const { jobs } = useJobs(database, { handlers: [handle(large, () => 'x'.repeat(5_000_000))] })
    const { id } = await enqueue({ database, jobs }, large, null)
    await until(async () => (await jobs.find(db, id))?.state === 'failed', 'it has failed')
    expect(await jobs.find(db, id)).toMatchObject({
      attempt: 1,
      error: expect.stringContaining('The result of test.large has'),
    })
  })

  test('is the only one of its kind', async () => {
    const { database } = await useDatabase()
    expect(() => useJobs(database, { handlers: [adding, adding] })).toThrow(
      'Two handlers for one kind of job: test.add',
    )
  })
})

describe('a listener', () => {
  test('is notified of a job that it waits for, wherever it runs, beginning with how it is', async () => {
    const { database } = await useDatabase()
    const stepping = job<null>('test.stepping')
    const goOn = Promise.withResolvers<void>()
    const handlers = [
      handle(stepping, async (_, { progress }) => {
        progress(0.5, 'half')
        await goOn.promise
      }),
    ]
    const here = useJobs(database, { concurrency: 0 })
    const { id } = await enqueue({ database, jobs: here.jobs }, stepping, null)
    const { id: other } = await enqueue({ database, jobs: here.jobs }, stepping, null)
    const seen: JobChange[] = []
    const stop = here.jobs.onChange(
      (change) => seen.push(change),
      () => [id],
    )
    await until(() => seen.length === 1, 'it is read at once')
    useJobs(database, { handlers, timing: { watchMs: 20 } })
    await until(() => seen.at(-1)?.note === 'half', 'its progress is read')
    goOn.resolve()
    await until(() => seen.at(-1)?.state === 'succeeded', 'its end is read')
    stop()
    expect(seen.every((change) => change.id === id && change.id !== other)).toBe(true)
    expect(new Set(seen.map((change) => JSON.stringify(change))).size).toBe(seen.length)
  })

  test('that throws keeps no other from being notified', async () => {
    const { database } = await useDatabase()
    const lines: string[] = []
    const { jobs } = useJobs(database, {
      concurrency: 0,
      log: pino({}, { write: (line) => void lines.push(line) }),
    })
    const seen: JobChange[] = []
    jobs.onChange(() => {
      throw new Error('no')
    })
    jobs.onChange((change) => seen.push(change))
    await enqueue({ database, jobs }, add, { a: 1, b: 2 })
    expect(seen).toMatchObject([{ state: 'queued' }])
    expect(lines.join()).toContain('A listener of job changes failed')
  })
})

describe('cancelling and retrying', () => {
  test('join the transaction of the caller: rolled back, nothing has happened', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const { jobs, statesOf } = useJobs(database, { concurrency: 0 })
    const { id } = await enqueue({ database, jobs }, add, { a: 1, b: 2 })
    const failing = transaction(db, async (trx) => {
      expect(await jobs.cancel(trx, id)).toMatchObject({ state: 'cancelled' })
      expect(await jobs.retry(trx, id)).toMatchObject({ state: 'queued' })
      throw new Error('changed my mind')
    })
    await expect(failing).rejects.toThrow('changed my mind')
    expect(statesOf(id)).toEqual(['queued'])
    await transaction(db, (trx) => jobs.cancel(trx, id))
    expect(await jobs.find(db, id)).toMatchObject({ state: 'cancelled' })
    expect(statesOf(id)).toEqual(['queued', 'cancelled'])
  })
})

describe('a process that may run one job at once', () => {
  test('begins the next while the result of the last is being written, but not the one after that', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const begun: number[] = []
    const first = Promise.withResolvers<void>()
    const follow = job<number>('test.follow')
    const handlers = [
      handle(follow, (number) => (begun.push(number) === 1 ? first.promise : undefined)),
    ]
    const { jobs, statesOf } = useJobs(database, { concurrency: 1, handlers })
    const ids: string[] = []
    // Of two that are queued within a millisecond either may go first, but for its priority.
    for (const number of [1, 2, 3])
      ids.push((await enqueue({ database, jobs }, follow, number, { priority: number })).id)
    await until(() => begun.length === 1, 'the first has begun')
    await transaction(db, async (trx) => {
      // Its end cannot be written.
      await trx.selectFrom('job').selectAll().where('id', '=', String(ids[0])).forUpdate().execute()
      first.resolve()
      await until(() => begun.length === 2, 'the next has begun')
      expect(statesOf(String(ids[0]))).toEqual(['queued', 'running'])
      await until(() => jobs.running === 0, 'it has ended, too')
      // Time enough to claim the last one, if there were room.
      for (let turn = 0; turn < 10; turn++) await jobs.count(db)
      expect(begun).toEqual([1, 2])
    })
    await until(() => begun.length === 3, 'the last has begun')
    expect(statesOf(String(ids[0]))).toEqual(['queued', 'running', 'succeeded'])
    expect(begun).toEqual([1, 2, 3])
  })
})

describe('a kind with a limit', () => {
  test('leaves the other places to other kinds, however many of its jobs wait', async () => {
    const { database } = await useDatabase()
    const over = Promise.withResolvers<void>()
    const long = job<null>('test.long', { limit: 2 })
    const { jobs, changes } = useJobs(database, {
      concurrency: 3,
      handlers: [adding, handle(long, () => over.promise)],
    })
    const begun = (kind: string) =>
      changes.filter((change) => change.kind === kind && change.state === 'running').length
    await transaction(database.withSignal(), async (trx) => {
      for (let index = 0; index < 20; index++) await jobs.enqueue(trx, long, null)
    })
    await until(() => begun(long.name) === 2, 'two are begun')
    for (let index = 0; index < 5; index++) {
      const { id } = await enqueue({ database, jobs }, add, { a: 1, b: index })
      await until(
        async () => (await jobs.find(database.withSignal(), id))?.state === 'succeeded',
        'the other kind is done',
        2_000,
      )
    }
    expect(begun(long.name)).toBe(2)
    expect(jobs.running).toBe(2)
    over.resolve()
    await until(
      async () => (await jobs.count(database.withSignal())).succeeded === 25,
      'all are done',
    )
  })

  test('never runs more of its jobs', async () => {
    const { database } = await useDatabase()
    let [atWork, most] = [0, 0]
    const single = job<null>('test.single', { limit: 1 })
    const handlers = [
      handle(single, async () => {
        most = Math.max(most, ++atWork)
        await sleep(5)
        atWork--
      }),
    ]
    const { jobs } = useJobs(database, { concurrency: 5, handlers })
    await Promise.all(Array.from({ length: 20 }, () => enqueue({ database, jobs }, single, null)))
    await until(
      async () => (await jobs.count(database.withSignal())).succeeded === 20,
      'all are done',
    )
    expect(most).toBe(1)
  })
})

describe('a job of a kind that this process has no handler for', () => {
  test('is left to others, without counting an attempt', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const lines: string[] = []
    const { jobs } = useJobs(database, { concurrency: 0 })
    const { id } = await enqueue({ database, jobs }, add, { a: 1, b: 2 })
    useJobs(database, {
      handlers: [handle(job<null>('test.known'), () => {})],
      log: pino({}, { write: (line) => void lines.push(line) }),
    })
    await until(
      () => lines.some((line) => line.includes('No handler') && line.includes(add.name)),
      'the log says so',
    )
    expect(await jobs.find(db, id)).toMatchObject({ state: 'queued', attempt: 0, startedAt: null })
    expect(await jobs.attempts(db, id)).toEqual([])
    useJobs(database, { handlers: [adding] })
    await until(async () => (await jobs.find(db, id))?.finishedAt, 'another does it')
    expect(await jobs.find(db, id)).toMatchObject({ state: 'succeeded', attempt: 1 })
  })
})

describe('finished jobs', () => {
  test('are pruned after the time that they are kept, with their attempts, and no others', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const { jobs, statesOf } = useJobs(database, {
      handlers: [adding],
      keepMs: 1,
      timing: { cleanUpMs: 50 },
    })
    const { id } = await enqueue({ database, jobs }, add, { a: 1, b: 2 })
    await until(() => statesOf(id).includes('succeeded'), 'it is done')
    const { id: later } = await enqueue(
      { database, jobs },
      add,
      { a: 1, b: 2 },
      { runAt: new Date(Date.now() + 60_000) },
    )
    await until(async () => !(await jobs.find(db, id)), 'it is gone')
    expect(await jobs.attempts(db, id)).toEqual([])
    expect((await jobs.find(db, later))?.state).toBe('scheduled')
  })
})

describe('cancelling', () => {
  test('a job that runs in another process aborts its signal, long before that process renews its lease', async () => {
    const { database } = await useDatabase()
    const endless = job<null>('test.endless')
    const started = Promise.withResolvers<void>()
    const ended = Promise.withResolvers<unknown>()
    const handlers = [
      handle(endless, async (_, { signal }) => {
        signal.addEventListener('abort', () => ended.resolve(signal.reason))
        started.resolve()
        await ended.promise
        signal.throwIfAborted()
      }),
    ]
    const here = useJobs(database, { concurrency: 0 })
    const there = useJobs(database, {
      handlers,
      timing: { heartbeatMs: 600_000, leaseMs: 1_800_000 },
    })
    const { id } = await enqueue({ database, jobs: here.jobs }, endless, null)
    await started.promise
    expect(await here.jobs.cancel(database.withSignal(), id)).toMatchObject({ state: 'cancelled' })
    expect(await ended.promise).toMatchObject({ code: 'cancelled' })
    await until(() => there.jobs.running === 0, 'its place is free')
    expect(here.statesOf(id)).toEqual(['queued', 'cancelled'])
    expect(there.statesOf(id)).toEqual(['running', 'cancelled'])
    expect(await here.jobs.attempts(database.withSignal(), id)).toMatchObject([
      { outcome: 'cancelled' },
    ])
  })

  test('stops the statement on the server and the task on its thread', async () => {
    const { database } = await useDatabase()
    const { pool } = await usePool({ threads: 1 })
    const query = job<null>('test.query')
    const calculate = job<null>('test.calculate')
    const handlers = [
      handle(
        query,
        async (_, { signal }) =>
          void (await sql`select sleep(600) as nap`.execute(database.withSignal(signal))),
      ),
      handle(calculate, (_, { signal }) =>
        pool.run(endlessly, null, { priority: 'batch', signal }),
      ),
    ]
    const { jobs: elsewhere } = useJobs(database, { concurrency: 0 })
    const { jobs } = useJobs(database, { handlers })
    const { id: querying } = await enqueue({ database, jobs }, query, null)
    const { id: calculating } = await enqueue({ database, jobs }, calculate, null)
    const naps = async () =>
      (await onServer('show processlist')).filter(({ Info }) => String(Info).includes('as nap'))
        .length
    await until(async () => pool.running === 1 && (await naps()) === 1, 'both are at work')
    await Promise.all(
      [querying, calculating].map((id) => elsewhere.cancel(database.withSignal(), id)),
    )
    await until(async () => pool.running === 0 && (await naps()) === 0, 'both have stopped')
    await until(() => jobs.running === 0, 'their places are free')
  })
})
