import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Jobs } from '@offloop/jobs/jobs'
import type { Transaction } from 'kysely'
import { expect, onTestFinished, test, vi } from 'vitest'
import { useJobs } from '../../../packages/jobs/test/support/jobs.ts'
import type { Db } from '../../../src/db/database.ts'
import type { Tables } from '../../../src/db/tables.ts'
import { afterCommit } from '../../../src/db/transaction.ts'
import { AppError } from '../../../src/errors.ts'
import { cancelReport, createReport } from '../../../src/features/reports/reports.ts'
import { DirectoryStorage, QUOTA, Quota } from '../../../src/features/reports/storage.ts'
import { useDatabase } from '../../support/database.ts'
import { OPERATOR } from '../../support/operator.ts'

const NEVER = new AbortController().signal

/**
 * Creates reports whose job is enqueued by `enqueue`, which can make the transaction end in any
 * way.
 */
async function useReports(
  wrap: (enqueue: Jobs['enqueue']) => Jobs['enqueue'] = (enqueue) => enqueue,
) {
  const { database } = await useDatabase()
  const { jobs } = useJobs(database, { concurrency: 0 })
  const directory = await mkdtemp(join(tmpdir(), 'offloop-create-'))
  onTestFinished(() => rm(directory, { recursive: true }))
  const storage = new DirectoryStorage(directory)
  const cancelJob: Jobs['cancel'] = jobs.cancel.bind(jobs)
  const wrapped = { enqueue: wrap(jobs.enqueue.bind(jobs)), cancel: cancelJob } as Jobs
  const deps = { jobs: wrapped, storage, quota: new Quota() }
  const createOn = (db: Db, request = newReport()) => createReport(deps, () => db, request)
  const create = (signal?: AbortSignal) => createOn(database.withSignal(signal))
  const cancel = (id: string) => cancelReport(deps, database.withSignal(), id, OPERATOR, NEVER)
  const countReports = async () =>
    (await database.withSignal().selectFrom('report').select('id').execute()).length
  return {
    database,
    storage,
    create,
    createOn,
    cancel,
    countReports,
    countFiles: async () => (await readdir(directory)).length,
  }
}

const newReport = (): Parameters<typeof createReport>[2] => ({
  body: (async function* () {
    yield Buffer.from('a\n1\n')
  })(),
  expectedBytes: undefined,
  maxBytes: 4,
  isLimited: false,
  idempotencyKey: 'key',
  requestId: 'request',
  owner: OPERATOR,
  groupBy: null,
  delimiter: null,
  value: null,
})

test('a client that leaves at the commit leaves the report and its upload whole', async () => {
  const client = new AbortController()
  const { create, countReports, countFiles } = await useReports((enqueue) => (trx, ...rest) => {
    afterCommit(trx, () =>
      client.abort(new AppError('cancelled', 'The client closed the connection')),
    )
    return enqueue(trx, ...rest)
  })
  expect((await create(client.signal)).state).toBe('queued')
  expect([await countReports(), await countFiles()]).toEqual([1, 1])
})

test('a commit whose answer is lost keeps the upload: it may have happened', async () => {
  const { database, createOn, countReports, countFiles } = await useReports((enqueue) => enqueue)
  const answerLost = new AppError('unavailable', 'The database went away while it saved the change')
  await expect(createOn(losingAnswers(database.withSignal(), answerLost))).rejects.toBe(answerLost)
  expect([await countReports(), await countFiles()]).toEqual([1, 1])
})

/** A handle whose transactions are committed, and then end in an error nevertheless. */
const losingAnswers = (db: Db, error: AppError): Db =>
  new Proxy(db, {
    get(target, name) {
      // Kysely has private members, which a proxy has not.
      if (name !== 'transaction') return Reflect.get(target, name, target).bind(target)
      const execute = async (story: (trx: Transaction<Tables>) => Promise<unknown>) => {
        await target.transaction().execute(story)
        throw error
      }
      return () => ({ execute })
    },
  })

test.each(['unavailable', 'cancelled', 'deadline_exceeded', 'overloaded'] as const)(
  'a transaction that ends before its commit, by %s, leaves no upload',
  async (code) => {
    const { create, countReports, countFiles } = await useReports((enqueue) => async (...args) => {
      await enqueue(...args)
      throw new AppError(code, 'Before the commit')
    })
    await expect(create()).rejects.toMatchObject({ code })
    expect([await countReports(), await countFiles()]).toEqual([0, 0])
  },
)

test('a repeat that loses the race is answered although its upload cannot be removed', async () => {
  let second: Promise<unknown> | undefined
  const { createOn, database, storage, countReports } = await useReports()
  const db = database.withSignal()
  const save = storage.save.bind(storage)
  const raced = vi.spyOn(storage, 'save').mockImplementationOnce(async (...args) => {
    second = createOn(db)
    await second
    return save(...args)
  })
  const away = new AppError('unavailable', 'The storage is away')
  vi.spyOn(storage, 'remove').mockRejectedValue(away)
  const first = await createOn(db)
  expect(first).toEqual(await second)
  expect([raced.mock.calls.length, await countReports()]).toEqual([2, 1])
})

test('an owner with too many unfinished reports waits, but repeats are answered', async () => {
  const { database, createOn, cancel, countFiles } = await useReports()
  const db = database.withSignal()
  const limited = (idempotencyKey: string) =>
    createOn(db, { ...newReport(), idempotencyKey, isLimited: true })
  const first = await limited('0')
  for (let count = 1; count < QUOTA.unfinished; count++) await limited(String(count))
  await expect(limited('more')).rejects.toMatchObject({ code: 'rate_limited' })
  expect(await countFiles()).toBe(QUOTA.unfinished)
  expect((await limited('0')).id).toBe(first.id)
  const other = { ...OPERATOR, id: 'account:99' }
  await createOn(db, { ...newReport(), owner: other, isLimited: true })
  await cancel(first.id)
  await limited('more')
})
