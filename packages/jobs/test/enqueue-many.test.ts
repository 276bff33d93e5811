import { describe, expect, test } from 'vitest'
import { transaction } from '../../../src/db/transaction.ts'
import { useDatabase } from '../../../test/support/database.ts'
import { until } from '../../../test/support/until.ts'
import { handle, job } from '../job.ts'
import { countJobs } from '../query.ts'
import type { Trx } from '../tables.ts'
import { useJobs } from './support/jobs.ts'

const note = job<{ n: number; text?: string }>('test.note')
const numbers = (count: number) => Array.from({ length: count }, (_, n) => ({ n }))

async function useMany(concurrency = 0) {
  const { database } = await useDatabase()
  const db = database.withSignal()
  const noted: number[] = []
  const handlers = [handle(note, ({ n }) => void noted.push(n))]
  const { jobs, changes } = useJobs(database, { concurrency, handlers, timing: { pollMs: 60_000 } })
  const inTransaction = <T>(story: (trx: Trx) => Promise<T>) => transaction(db, story)
  return { db, jobs, changes, noted, inTransaction }
}

describe('enqueueMany', () => {
  test('enqueues all in the transaction, with ids in the order of the inputs', async () => {
    const { db, jobs, inTransaction } = await useMany()
    const options = { priority: 3, requestId: 'r-1', subject: 'account:7' }
    const { ids } = await inTransaction((trx) =>
      jobs.enqueueMany(trx, note, numbers(1_000), options),
    )
    expect(ids).toHaveLength(1_000)
    expect(ids.toSorted()).toEqual(ids)
    for (const n of [0, 255, 256, 999])
      expect(await jobs.find(db, ids[n] as string)).toMatchObject({
        input: { n },
        state: 'queued',
        priority: 3,
        requestId: 'r-1',
        subject: 'account:7',
      })
    const failing = inTransaction(async (trx) => {
      await jobs.enqueueMany(trx, note, numbers(10))
      throw new Error('Rolled back')
    })
    await expect(failing).rejects.toThrow('Rolled back')
    expect(await countJobs(db)).toMatchObject({ queued: 1_000 })
  })

  test('starts them at once, in order', async () => {
    const { jobs, noted, changes, inTransaction } = await useMany(1)
    await inTransaction((trx) => jobs.enqueueMany(trx, note, numbers(20)))
    await until(() => noted.length === 20, 'all are done')
    expect(noted).toEqual(numbers(20).map(({ n }) => n))
    expect(changes.filter(({ state }) => state === 'queued')).toHaveLength(20)
  })

  test('takes inputs that are too large for one statement together', async () => {
    const { db, jobs, inTransaction } = await useMany()
    const text = 'x'.repeat(60_000)
    const inputs = numbers(300).map(({ n }) => ({ n, text }))
    const { ids } = await inTransaction((trx) => jobs.enqueueMany(trx, note, inputs))
    expect((await jobs.find(db, ids.at(-1) as string))?.input).toEqual({ n: 299, text })
  })

  test('schedules them for a time, or queues them when that has passed', async () => {
    const { db, jobs, changes, inTransaction } = await useMany()
    for (const [runAt, state] of [
      [new Date(Date.now() + 60_000), 'scheduled'],
      [new Date(0), 'queued'],
    ] as const) {
      const { ids } = await inTransaction((trx) =>
        jobs.enqueueMany(trx, note, numbers(2), { runAt }),
      )
      for (const id of ids)
        expect(await jobs.find(db, id)).toMatchObject({
          state,
          runAt: state === 'scheduled' ? runAt : null,
        })
      expect(changes.at(-1)).toMatchObject({ state })
    }
  })

  test('does nothing for no inputs', async () => {
    const { db, jobs, inTransaction } = await useMany()
    expect(await inTransaction((trx) => jobs.enqueueMany(trx, note, []))).toEqual({ ids: [] })
    expect(await countJobs(db)).toMatchObject({ queued: 0 })
  })

  test('refuses a dedupe key, and an input that is too large before it writes any', async () => {
    const { db, jobs, inTransaction } = await useMany()
    const keyed = { dedupeKey: 'k' } as object
    await expect(
      inTransaction((trx) => jobs.enqueueMany(trx, note, numbers(2), keyed)),
    ).rejects.toThrow("Expected `dedupeKey` to be left out: enqueue such jobs one by one, got 'k'")
    const tooLarge = [{ n: 1 }, { n: 2, text: 'x'.repeat(70_000) }]
    await inTransaction(async (trx) => {
      await expect(jobs.enqueueMany(trx, note, tooLarge)).rejects.toMatchObject({
        code: 'too_large',
      })
    })
    expect(await countJobs(db)).toMatchObject({ queued: 0 })
  })
})
