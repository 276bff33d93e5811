import { once } from 'node:events'
import { describe, expect, test } from 'vitest'
import { transaction } from '../../../src/db/transaction.ts'
import { useDatabase } from '../../../test/support/database.ts'
import { until } from '../../../test/support/until.ts'
import { JobError } from '../errors.ts'
import { handle, type JobContext, job } from '../job.ts'
import { useClaims } from './support/claims.ts'
import { enqueue, useJobs } from './support/jobs.ts'

interface Pay {
  amount: number
}

const pay = job<Pay>('test.pay', { attempts: 2, backoffMs: 10 })
const BY = { requestId: 'r-1', subject: 'account:7', trace: '00-4bf9-00f0-01' }
const TIMING = { pollMs: 50, watchMs: 20 }

async function usePayments(run: (context: JobContext) => unknown, kind = pay) {
  const { database } = await useDatabase()
  const db = database.withSignal()
  const failed: (Pick<JobContext, 'id' | 'attempt' | 'trace'> & { input: Pay; error: string })[] =
    []
  let failures = 0
  const onFailed = (input: Pay, { id, attempt, trace }: JobContext, error: string) => {
    if (failures-- > 0) throw new Error('Not yet')
    failed.push({ input, id, error, attempt, trace })
  }
  const handler = handle(
    kind,
    async (_, context) => {
      await run(context)
    },
    { onFailed },
  )
  const { jobs } = useJobs(database, { handlers: [handler], timing: TIMING })
  const put = () => enqueue({ database, jobs }, kind, { amount: 7 }, BY)
  const failFirst = (count: number) => {
    failures = count
  }
  const handled = async () => (await jobs.list(db, { limit: 9, kind: 'test.pay:failed' }))[0]
  return { db, jobs, failed, put, failFirst, handled }
}

const untilAborted = async ({ signal }: JobContext) => {
  await once(signal, 'abort')
  signal.throwIfAborted()
}

const refuse = () => {
  throw new JobError('conflict', 'The card was refused')
}

describe('onFailed', () => {
  test('is called once the last attempt has failed, with the input, the public text and the trace', async () => {
    const { put, failed, handled } = await usePayments(refuse)
    const { id } = await put()
    await until(() => failed.length > 0, 'it is called')
    expect(failed).toEqual([
      { input: { amount: 7 }, id, error: 'The card was refused', attempt: 1, trace: BY.trace },
    ])
    expect(await handled()).toMatchObject({ requestId: 'r-1', subject: 'account:7' })
  })

  test('is called for an error that is not retryable, and after a timeout', async () => {
    const discarded = await usePayments(() => {
      throw new JobError('conflict', 'Never', { retryable: false })
    })
    await discarded.put()
    await until(() => discarded.failed[0]?.error === 'Never', 'it is called')
    const slow = await usePayments(
      untilAborted,
      job<Pay>('test.pay', { attempts: 1, timeoutMs: 50 }),
    )
    await slow.put()
    await until(() => slow.failed.length > 0, 'it is called')
    expect(slow.failed[0]?.error).toBe('It was not done within 50 ms')
  })

  test('is called for a job that was lost, though a process without its handler finds that', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const single = job<Pay>('test.pay', { attempts: 1 })
    const failed: string[] = []
    const { jobs: elsewhere } = useJobs(database, { concurrency: 0, timing: { pollMs: 60_000 } })
    const { id } = await enqueue({ database, jobs: elsewhere }, single, { amount: 7 })
    const gone = useClaims(db, [single], { leaseMs: -1_000, onFailed: () => {} })
    expect(await gone.claim(1)).toHaveLength(1)
    const stranger = useClaims(db, [])
    expect(await stranger.store.rescue()).toMatchObject([
      { id, state: 'failed' },
      { kind: 'test.pay:failed', state: 'queued' },
    ])
    const onFailed = (_: Pay, context: JobContext) => void failed.push(context.id)
    useJobs(database, { handlers: [handle(single, () => {}, { onFailed })], timing: TIMING })
    await until(() => failed.length > 0, 'it is called')
    expect(failed).toEqual([id])
  })

  test('is tried again when it fails itself', async () => {
    const { put, failed, failFirst, handled } = await usePayments(refuse)
    failFirst(1)
    await put()
    await until(() => failed.length > 0, 'it is called again')
    await until(async () => (await handled())?.state === 'succeeded', 'it is done')
    expect(await handled()).toMatchObject({ attempt: 2 })
  })

  test('is not called for a job that succeeds, is cancelled or has another attempt', async () => {
    const { db, jobs, put, failed, handled } = await usePayments(({ attempt }) =>
      attempt === 1 ? refuse() : undefined,
    )
    const { id } = await put()
    await until(async () => (await jobs.find(db, id))?.state === 'succeeded', 'it has succeeded')
    const { id: waiting } = await transaction(db, (trx) =>
      jobs.enqueue(trx, pay, { amount: 1 }, { runAt: new Date(Date.now() + 60_000) }),
    )
    await jobs.cancel(db, waiting)
    expect(failed).toEqual([])
    expect(await handled()).toBeUndefined()
  })

  test('needs room in the name of its job', () => {
    const long = job<Pay>('x'.repeat(94))
    expect(() => handle(long, () => {}, { onFailed: () => {} })).toThrow(
      'Expected the name of a job with `onFailed` to have at most 93 characters, got 94',
    )
  })
})
