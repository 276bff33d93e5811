import { EventEmitter, once } from 'node:events'
import { expect, test } from 'vitest'
import { transaction } from '../../../src/db/transaction.ts'
import { useDatabase } from '../../../test/support/database.ts'
import { until } from '../../../test/support/until.ts'
import { handle, job } from '../job.ts'
import type { JobSignal } from '../jobs.ts'
import { enqueue, useJobs } from './support/jobs.ts'

/** So that only a signal explains what happens soon. */
const TIMING = { pollMs: 600_000, watchMs: 600_000 }

const quick = job<null>('test.quick')
const long = job<null>('test.long')

/** Two processes, of which the second runs the jobs, and what they signal to each other. */
async function useTwo() {
  const { database } = await useDatabase()
  const channel = new EventEmitter()
  const sent: JobSignal[] = []
  const signals = {
    publish(signal: JobSignal) {
      sent.push(signal)
      channel.emit('signal', signal)
    },
    subscribe(listener: (signal: JobSignal) => void) {
      channel.on('signal', listener)
      return () => void channel.off('signal', listener)
    },
  }
  const handlers = [
    handle(quick, async () => {}),
    handle(long, async (_, { signal }) => {
      await once(signal, 'abort')
      throw signal.reason
    }),
  ]
  const options = { signals, handlers, timing: TIMING }
  const web = useJobs(database, { ...options, concurrency: 0 })
  const worker = useJobs(database, options)
  const { id } = await enqueue({ database, jobs: worker.jobs }, quick, null)
  await until(() => worker.statesOf(id).includes('succeeded'), 'its loops have begun')
  await until(() => sent.splice(0).length > 0, 'it has said so')
  return { database, db: database.withSignal(), web, worker, sent }
}

test('a commit wakes idle workers of other processes', async () => {
  const { database, web, worker } = await useTwo()
  const { id } = await enqueue({ database, jobs: web.jobs }, quick, null)
  await until(() => worker.statesOf(id).includes('succeeded'), 'it is done')
})

test('a retry does, too, and a transaction that is rolled back wakes nobody', async () => {
  const { db, database, web, worker, sent } = await useTwo()
  const { id } = await enqueue({ database, jobs: web.jobs }, long, null)
  await until(() => worker.statesOf(id).includes('running'), 'it runs')
  await web.jobs.cancel(db, id)
  await until(() => worker.jobs.running === 0, 'it has ended')
  const count = sent.length
  const failing = transaction(db, async (trx) => {
    await web.jobs.enqueue(trx, quick, null)
    throw new Error('Roll back')
  })
  await expect(failing).rejects.toThrow('Roll back')
  expect(sent.length).toBe(count)
  await web.jobs.retry(db, id)
  await until(() => worker.jobs.running === 1, 'it runs again')
  await web.jobs.cancel(db, id)
})

test('a job that is cancelled in one process ends at once in the other, which publishes nothing', async () => {
  const { db, database, web, worker } = await useTwo()
  const { id } = await enqueue({ database, jobs: web.jobs }, long, null)
  await until(() => worker.statesOf(id).includes('running'), 'it runs')
  await web.jobs.cancel(db, id)
  await until(() => worker.jobs.running === 0, 'its signal has aborted')
  expect([web.statesOf(id), worker.statesOf(id)]).toEqual([['queued', 'cancelled'], ['running']])
})

test('many changes are one signal', async () => {
  const { db, web, sent } = await useTwo()
  const ids = await transaction(db, async (trx) => {
    const all = Array.from({ length: 50 }, () =>
      web.jobs.enqueue(trx, quick, null, { priority: 1 }),
    )
    return (await Promise.all(all)).map(({ id }) => id)
  })
  await until(() => sent.length > 0, 'it is said')
  expect(sent).toEqual([{ from: expect.any(String), queued: true, cancelled: [] }])
  expect(ids.length).toBe(50)
})

test('jobs that a process releases when it stops wake the others', async () => {
  const { database, web, worker, sent } = await useTwo()
  const { id } = await enqueue({ database, jobs: web.jobs }, long, null)
  await until(() => worker.statesOf(id).includes('running'), 'it runs')
  const count = sent.length
  await worker.jobs.stop()
  expect(worker.statesOf(id).at(-1)).toBe('queued')
  expect(sent.slice(count)).toMatchObject([{ queued: true }])
})

test('listeners are notified of who made a change', async () => {
  const { db, database, web, worker } = await useTwo()
  const { id } = await enqueue({ database, jobs: web.jobs }, long, null)
  await until(() => worker.statesOf(id).includes('running'), 'it runs')
  const noticed: [string, boolean][] = []
  const watching = useJobs(database, { concurrency: 0 })
  watching.jobs.onChange(
    ({ state }, isOwn) => noticed.push([state, isOwn]),
    () => [id],
  )
  await until(() => noticed.length > 0, 'it reads the job')
  await watching.jobs.cancel(db, id)
  expect(noticed).toEqual([
    ['running', false],
    ['cancelled', true],
  ])
})
