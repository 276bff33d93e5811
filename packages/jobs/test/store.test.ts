import { describe, expect, test } from 'vitest'
import { transaction } from '../../../src/db/transaction.ts'
import { useDatabase } from '../../../test/support/database.ts'
import { insertJob, toNewJob } from '../enqueue.ts'
import { job } from '../job.ts'
import { findJob, listAttempts } from '../query.ts'
import type { AttemptResult, Claim } from '../store.ts'
import { useClaims } from './support/claims.ts'

const LEASE_MS = 30_000
/** Runs out before anyone looks. */
const NO_LEASE_MS = -1_000

async function useStore({ attempts = 5 } = {}) {
  const { database } = await useDatabase()
  const db = database.withSignal()
  const some = job<null>('test.some', { attempts })
  const { store } = useClaims(db, [some])
  const { id } = await transaction(db, (trx) => insertJob(trx, toNewJob(some, null)))
  const claim = async (worker: string, leaseMs = LEASE_MS) => {
    // A lost job waits for a moment: here that is over at once.
    await db
      .updateTable('job')
      .set({ state: 'queued', due_at: null })
      .where('state', '=', 'scheduled')
      .execute()
    const [claimed] = await useClaims(db, [some], { worker, leaseMs }).claim(1)
    return claimed as Claim
  }
  const finish = (attempt: Claim, result: AttemptResult) =>
    store.finish([{ claim: attempt, result }])
  return {
    store,
    id,
    claim,
    finish,
    cancel: () => transaction(db, (trx) => store.cancel(trx, [id])),
    retry: () => transaction(db, (trx) => store.retry(trx, [id])),
    find: () => findJob(db, id),
    attempts: () => listAttempts(db, id),
  }
}

const done: AttemptResult = { state: 'succeeded', result: '"mine"' }

describe('a worker whose job was taken over while it was away', () => {
  test('writes nothing any more: no progress, no lease, no end', async () => {
    const { store, claim, finish, find } = await useStore()
    const stale = await claim('slow', NO_LEASE_MS)
    await store.rescue()
    const fresh = await claim('quick')
    const before = await find()
    expect(await store.writeProgress(stale, 0.9, 'stale')).toBe(false)
    await store.renew([stale], NO_LEASE_MS)
    for (const result of [
      done,
      { state: 'queued' } as const,
      { state: 'failed', error: 'x', detail: 'x' } as const,
    ])
      expect(await finish(stale, result)).toEqual([])
    expect(await find()).toEqual(before)
    expect(await store.rescue()).toEqual([])
    expect(await finish(fresh, { state: 'succeeded', result: '"theirs"' })).toMatchObject([
      { state: 'succeeded' },
    ])
    expect((await find())?.result).toBe('theirs')
  })

  test('learns of it when it looks', async () => {
    const { store, claim } = await useStore()
    const stale = await claim('slow', NO_LEASE_MS)
    expect(await store.findLost([stale])).toEqual(new Map())
    await store.rescue()
    const fresh = await claim('quick')
    expect([...(await store.findLost([stale, fresh])).keys()]).toEqual([stale])
  })

  test('may go on while nobody has noticed', async () => {
    const { store, claim, finish } = await useStore()
    const late = await claim('slow', NO_LEASE_MS)
    await store.renew([late], LEASE_MS)
    expect(await store.rescue()).toEqual([])
    expect(await finish(late, done)).toMatchObject([{ state: 'succeeded' }])
  })
})

describe('a job that is lost', () => {
  test('waits for a moment, then is begun again; after its last attempt it has failed', async () => {
    const { store, id, claim, find, attempts } = await useStore({ attempts: 2 })
    await claim('one', NO_LEASE_MS)
    expect(await store.rescue()).toMatchObject([{ id, state: 'scheduled', attempt: 1 }])
    await claim('two', NO_LEASE_MS)
    expect(await store.rescue()).toMatchObject([{ id, state: 'failed', attempt: 2 }])
    expect(await find()).toMatchObject({
      state: 'failed',
      error: 'Every process that began it ended before it was done',
    })
    expect((await attempts()).map(({ worker, outcome }) => [worker, outcome])).toEqual([
      ['one', 'lost'],
      ['two', 'lost'],
    ])
  })
})

describe('a job that is released', () => {
  test('is queued at once, and that attempt does not count', async () => {
    const { claim, finish, attempts } = await useStore({ attempts: 1 })
    await finish(await claim('one'), { state: 'queued' })
    expect(await claim('two')).toMatchObject({ attempt: 1, fence: 2 })
    expect((await attempts()).map(({ outcome }) => outcome)).toEqual(['released', null])
  })
})

describe('a job that is cancelled while it runs', () => {
  test('stays cancelled, whatever its worker says later, and is over in its history', async () => {
    const { claim, cancel, finish, find, attempts } = await useStore()
    const first = await claim('one')
    expect(await cancel()).toMatchObject([{ state: 'cancelled' }])
    expect(await finish(first, done)).toEqual([])
    expect(await find()).toMatchObject({ state: 'cancelled', result: null })
    expect(await attempts()).toMatchObject([{ outcome: 'cancelled' }])
  })

  test('and is retried is another claim: the first worker has no say in it', async () => {
    const { claim, cancel, retry, finish } = await useStore()
    const first = await claim('one')
    await cancel()
    await retry()
    const second = await claim('two')
    expect(second).toMatchObject({ attempt: 1, fence: 2 })
    expect(await finish(first, done)).toEqual([])
    expect(await finish(second, done)).toMatchObject([{ state: 'succeeded' }])
  })
})
