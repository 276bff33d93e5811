import { type EnqueueOptions, insertJob, toNewJob } from '@offloop/jobs/enqueue'
import { job } from '@offloop/jobs/job'
import { JobStore } from '@offloop/jobs/store'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { transaction } from '../../../src/db/transaction.ts'
import { request, startService } from '../../support/service.ts'

let service: Awaited<ReturnType<typeof startService>>
let url: string
let store: JobStore

beforeAll(async () => {
  // It runs none itself: the tests say what becomes of them.
  service = await startService({ JOBS_CONCURRENCY: '0' })
  url = `${service.url}/v1/jobs`
  store = new JobStore({ open: () => service.database.withSignal(), transaction, keepMs: 60_000 })
})
afterAll(() => service.close())

/** One that waits in the queue. */
const create = async (kind = 'test.some', options: EnqueueOptions = {}) => {
  const some = job<{ n: number }>(kind, { attempts: 1 })
  const row = toNewJob(some, { n: 1 }, { requestId: 'r-1', ...options })
  return (await transaction(service.database.withSignal(), (trx) => insertJob(trx, row))).id
}

/** One that was begun, and failed for good. */
const createFailed = async (kind: string) => {
  const id = await create(kind)
  const { claims } = await store.claim({
    worker: 'w:1',
    rooms: new Map([[kind, 1]]),
    limit: 1,
    leaseMs: 30_000,
    ids: [id],
  })
  const result = { state: 'failed', error: 'It cannot be done', detail: 'Error: secret' } as const
  await store.finish(claims.map((claim) => ({ claim, result })))
  return id
}

describe('the list', () => {
  test('has the newest first, page by page, by state and by kind', async () => {
    const ids: string[] = []
    for (let index = 0; index < 5; index++) ids.unshift(await create('test.listed'))
    const failed = await createFailed('test.listed')
    const query = `${url}?kind=test.listed&state=queued&limit=2`
    const first = (await request(query)).body
    const second = (await request(`${query}&cursor=${first.nextCursor}`)).body
    const third = (await request(`${query}&cursor=${second.nextCursor}`)).body
    const found = [first, second, third].flatMap(({ items }) =>
      items.map(({ id }: { id: string }) => id),
    )
    expect(found.toSorted()).toEqual(ids.toSorted())
    expect(third.nextCursor).toBeNull()
    const { body } = await request(`${url}?kind=test.listed&state=failed`)
    expect(body.items).toMatchObject([{ id: failed, state: 'failed' }])
    expect(body.items[0]).not.toHaveProperty('input')
  })

  test('refuses a state that there is not, and a cursor of another list', async () => {
    expect((await request(`${url}?state=lost`)).body.errors).toMatchObject([
      { path: 'query.state' },
    ])
    expect((await request(`${url}?cursor=aWQ6Nw`)).body.errors).toMatchObject([
      { path: 'query.cursor' },
    ])
  })

  test('refuses a kind that no job can have', async () => {
    for (const kind of [
      '%C3%A9',
      '%F0%9F%98%80',
      '',
      'a%20b',
      'order.send%20',
      '%00',
      'x'.repeat(101),
    ]) {
      const { status, body } = await request(`${url}?kind=${kind}`)
      expect([status, body.errors]).toMatchObject([422, [{ path: 'query.kind' }]])
    }
    expect((await request(`${url}?kind='\\%22%25_`)).body.items).toEqual([])
  })
})

describe('one job', () => {
  test('has its attempts and what went wrong the last time', async () => {
    const id = await createFailed('test.read')
    const { status, body } = await request(`${url}/${id}`)
    expect(status).toBe(200)
    expect(body).toMatchObject({
      id,
      kind: 'test.read',
      state: 'failed',
      input: { n: 1 },
      result: null,
      requestId: 'r-1',
    })
    expect(body).toMatchObject({
      error: 'It cannot be done',
      lastError: 'Error: secret',
      attempt: 1,
      maxAttempts: 1,
    })
    expect(body.attempts).toMatchObject([
      { attempt: 1, worker: 'w:1', outcome: 'failed', error: 'Error: secret' },
    ])
  })

  test('that is not there gets 404, and an id that cannot be gets 422', async () => {
    const nobody = '01a1fc0d-742f-7b18-8ad4-e88d087834bf'
    for (const [method, path] of [
      ['GET', ''],
      ['DELETE', ''],
      ['POST', '/retry'],
    ])
      expect((await request(`${url}/${nobody}${path}`, method)).body).toMatchObject({
        status: 404,
        code: 'not_found',
      })
    expect((await request(`${url}/seven`)).status).toBe(422)
  })

  test('is found by its id in upper case, too', async () => {
    const id = await create()
    expect((await request(`${url}/${id.toUpperCase()}`)).body.id).toBe(id)
    expect((await request(`${url}/${id.toUpperCase()}`, 'DELETE')).body).toMatchObject({
      id,
      state: 'cancelled',
    })
    expect((await request(`${url}/${id.toUpperCase()}/retry`, 'POST')).body).toMatchObject({
      id,
      state: 'queued',
    })
  })
})

describe('cancelling', () => {
  test('ends a queued job at once, says so again the next time, and a retry queues it', async () => {
    const id = await create()
    for (let time = 0; time < 2; time++) {
      const { status, body } = await request(`${url}/${id}`, 'DELETE')
      expect([status, body.state]).toEqual([202, 'cancelled'])
    }
    const { status, body } = await request(`${url}/${id}/retry`, 'POST')
    expect([status, body]).toMatchObject([202, { state: 'queued', attempt: 0, finishedAt: null }])
  })

  test('and retrying leave a job alone that is past it', async () => {
    const failed = await createFailed('test.past')
    expect((await request(`${url}/${failed}`, 'DELETE')).body).toMatchObject({
      status: 409,
      detail: 'The job has failed already',
    })
    const queued = await create()
    expect((await request(`${url}/${queued}/retry`, 'POST')).status).toBe(409)
  })
})

test('the metrics count jobs by state, in all processes together', async () => {
  const before = await countOf('failed')
  await createFailed('test.counted')
  expect(await countOf('failed')).toBe(before + 1)
  expect(await countOf('running')).toBe(0)
})

async function countOf(state: string): Promise<number> {
  const page = await (await fetch(`${service.url}/metrics`)).text()
  return Number(page.match(new RegExp(`^jobs\\{state="${state}"\\} (\\d+)$`, 'm'))?.[1])
}
