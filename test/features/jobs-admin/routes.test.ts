import { type EnqueueOptions, insertJob, toNewJob } from '@offloop/jobs/enqueue'
import { job } from '@offloop/jobs/job'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { useClaims } from '../../../packages/jobs/test/support/claims.ts'
import { transaction } from '../../../src/db/transaction.ts'
import { openAllAndFixture } from '../../support/fixture/features.ts'
import { idle } from '../../support/fixture/work.ts'
import { request, startService } from '../../support/service.ts'
import { until } from '../../support/until.ts'

let service: Awaited<ReturnType<typeof startService>>
let url: string

beforeAll(async () => {
  // It runs none itself: the tests say what becomes of them.
  service = await startService({ JOBS_QUEUES: 'off' }, openAllAndFixture)
  url = `${service.url}/v1/jobs`
})
afterAll(() => service.close())

/** One that waits in the queue. */
const create = async (kind = 'test.some', options: EnqueueOptions = {}) => {
  const some = job<{ n: number }>(kind, { attempts: 1 })
  const row = toNewJob(some, { n: 1 }, { requestId: 'r-1', subject: 'account:7', ...options })
  return (await transaction(service.database.withSignal(), (trx) => insertJob(trx, row))).id
}

/** One that was begun, and failed for good. */
const createFailed = async (kind: string) => {
  const id = await create(kind)
  const { store, claims } = useClaims(service.database.withSignal(), [job(kind)], { worker: 'w:1' })
  const claimed = await claims.claimNamed(id)
  const result = { state: 'failed', error: 'It cannot be done', detail: 'Error: secret' } as const
  await store.finish(claimed.map((claim) => ({ claim, result })))
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

describe('the filters of the list', () => {
  const HOUR_MS = 3_600_000

  test('combine: by kind, state, key, request and time', async () => {
    const kind = 'test.filtered'
    const id = await create(kind, { dedupeKey: 'order 7', requestId: 'r-7' })
    await create(kind, { dedupeKey: 'order 8', requestId: 'r-8' })
    await create('test.filtered-too', { dedupeKey: 'order 7', requestId: 'r-7' })
    const hourAgo = new Date(Date.now() - HOUR_MS).toISOString()
    const inAnHour = new Date(Date.now() + HOUR_MS).toISOString()
    const matching = {
      kind,
      state: 'queued',
      key: 'order 7',
      requestId: 'r-7',
      createdAfter: hourAgo,
      createdBefore: inAnHour,
    }
    const failing = {
      kind: 'test.filtered-too',
      state: 'failed',
      key: 'order 9',
      requestId: 'r-9',
      createdAfter: inAnHour,
      createdBefore: hourAgo,
    }
    expect(await find(matching)).toEqual([id])
    for (const [name, value] of Object.entries(failing))
      expect(await find({ ...matching, [name]: value }), name).not.toContain(id)
    const names = Object.keys(matching) as (keyof typeof matching)[]
    for (const name of names) expect(await find({ [name]: matching[name] }), name).toContain(id)
    expect(await find({ key: 'order 7' })).toHaveLength(2)
    expect(await find({ requestId: 'r-7', kind })).toEqual([id])
  })

  test('take keys literally, with spaces and bars at their ends, and show them so', async () => {
    for (const key of ['a', 'a ', 'a|', 'a |', '_', '%']) {
      const id = await create('test.keys', { dedupeKey: key })
      const { body } = await request(`${url}?${new URLSearchParams({ kind: 'test.keys', key })}`)
      expect(body.items).toMatchObject([{ id, key }])
    }
  })

  test('split by time at the millisecond: what was created then is after it', async () => {
    const id = await create('test.moment')
    const at = Number.parseInt(id.replace('-', '').slice(0, 12), 16)
    const time = (ms: number) => new Date(ms).toISOString()
    expect(await find({ kind: 'test.moment', createdAfter: time(at) })).toEqual([id])
    expect(await find({ kind: 'test.moment', createdAfter: time(at + 1) })).toEqual([])
    expect(await find({ kind: 'test.moment', createdBefore: time(at) })).toEqual([])
    expect(await find({ kind: 'test.moment', createdBefore: time(at + 1) })).toEqual([id])
    expect(await find({ kind: 'test.moment', createdAfter: '0001-01-01T00:00:00Z' })).toEqual([id])
  })

  test('keep the order over all states when only the kind is given', async () => {
    const ids: string[] = []
    for (let index = 0; index < 3; index++)
      ids.unshift(await create('test.mixed'), await createFailed('test.mixed'))
    const first = (await request(`${url}?kind=test.mixed&limit=4`)).body
    const rest = (await request(`${url}?kind=test.mixed&limit=4&cursor=${first.nextCursor}`)).body
    const found = [...first.items, ...rest.items].map(({ id }: { id: string }) => id)
    expect(found).toEqual(ids.toSorted().toReversed())
    expect(rest.nextCursor).toBeNull()
  })

  test.each(['requestId=a%20b', 'createdAfter=yesterday', 'key=', 'colour=red'])(
    'refuse %s',
    async (query) => {
      const { status, body } = await request(`${url}?${query}`)
      expect([status, body.errors[0].path]).toEqual([422, `query.${query.split('=')[0]}`])
    },
  )

  const find = async (filter: Record<string, string>): Promise<string[]> => {
    const { body } = await request(`${url}?limit=100&${new URLSearchParams(filter)}`)
    return body.items.map(({ id }: { id: string }) => id)
  }
})

describe('the counts', () => {
  test('are by state, of what the filters match', async () => {
    await create('test.counts', { requestId: 'r-counts' })
    await create('test.counts')
    await createFailed('test.counts')
    const none = { scheduled: 0, running: 0, parked: 0, succeeded: 0, cancelled: 0 }
    const count = async (query: string) => (await request(`${url}/counts?${query}`)).body
    expect(await count('kind=test.counts')).toEqual({ ...none, queued: 2, failed: 1 })
    expect(await count('requestId=r-counts')).toEqual({ ...none, queued: 1, failed: 0 })
    const later = new Date(Date.now() + 60_000).toISOString()
    expect(await count(`createdAfter=${later}`)).toEqual({ ...none, queued: 0, failed: 0 })
    expect((await count('')).queued).toBeGreaterThan(2)
    expect((await request(`${url}/counts?state=failed`)).status).toBe(422)
  })
})

test('the kinds are those that have jobs or a handler, and say which', async () => {
  await create('test.kinds')
  const { items } = (await request(`${url}/kinds`)).body
  expect(items).toContainEqual({ kind: 'test.kinds', isHandled: false })
  expect(items).toContainEqual({ kind: idle.name, isHandled: true })
  const kinds = items.map(({ kind }: { kind: string }) => kind)
  expect(kinds).toEqual([...new Set(kinds)].toSorted())
})

describe('the queues', () => {
  const find = async (queue: string) =>
    (await request(`${url}/queues`)).body.items.find(
      (row: { queue: string }) => row.queue === queue,
    )

  test('have how many jobs wait and run, whether any process runs them, and can be paused', async () => {
    const some = job('test.queued', { queue: 'test-queue' })
    const row = toNewJob(some, null as never)
    await transaction(service.database.withSignal(), (trx) => insertJob(trx, row))
    const queue = { queue: 'test-queue', isRun: false, pausedAt: null, queued: 1, running: 0 }
    expect(await find('test-queue')).toEqual(queue)
    const act = async (verb: string, name = 'test-queue') =>
      (await request(`${url}/queues/${name}/${verb}`, 'POST')).status
    expect(await act('pause')).toBe(204)
    expect(await find('test-queue')).toEqual({ ...queue, pausedAt: expect.stringMatching(/Z$/) })
    for (let time = 0; time < 2; time++) expect(await act('resume')).toBe(204)
    expect(await find('test-queue')).toEqual(queue)
    expect(await act('pause', 'nowhere')).toBe(404)
    expect(await act('resume', 'a%20b')).toBe(422)
  })
})

describe('retrying and cancelling all that match', () => {
  const post = (verb: string, body: unknown) => request(`${url}/${verb}`, 'POST', body)
  /** A call on a slow machine changes less. */
  async function postAll(verb: string, filter: object): Promise<number> {
    const { changed, more } = (await post(verb, filter)).body
    return more ? changed + (await postAll(verb, filter)) : changed
  }
  const counts = async (kind: string) => (await request(`${url}/counts?kind=${kind}`)).body

  test('changes all of 2500 jobs, and leaves others alone', async () => {
    const rows = Array.from({ length: 2_500 }, (_, index) => ({
      id: `01a1fc0d-0000-7000-8000-${String(index).padStart(12, '0')}`,
      kind: 'test.many',
      state: 'failed' as const,
      due_at: new Date(Date.now() + 60_000),
      priority: 0,
      max_attempts: 1,
      attempt: 1,
      error: 'It cannot be done',
      input: 'null',
      finished_at: new Date(),
    }))
    await service.database.withSignal().insertInto('job').values(rows).execute()
    const other = await createFailed('test.few')
    const filter = { state: 'failed', kind: 'test.many' }
    expect(await postAll('retry', filter)).toBe(2_500)
    expect(await counts('test.many')).toMatchObject({ failed: 0, queued: 2_500 })
    const { body } = await request(`${url}?kind=test.many&limit=1`)
    expect(body.items).toMatchObject([{ state: 'queued', attempt: 0, error: null }])
    expect((await request(`${url}/${other}`)).body.state).toBe('failed')
    expect((await post('retry', filter)).body).toEqual({ changed: 0, more: false })
    const queued = { state: 'queued', kind: 'test.many' }
    expect(await postAll('cancel', queued)).toBe(2_500)
    expect(await counts('test.many')).toMatchObject({ queued: 0, cancelled: 2_500 })
  })

  test('takes the same filters as the list', async () => {
    const kind = 'test.some-of'
    const first = await create(kind, { dedupeKey: 'one', requestId: 'r-some-of' })
    await create(kind, { dedupeKey: 'two', requestId: 'r-some-of' })
    const body = { state: 'queued', kind, key: 'one', requestId: 'r-some-of' }
    expect((await post('cancel', body)).body.changed).toBe(1)
    expect((await request(`${url}/${first}`)).body).toMatchObject({ state: 'cancelled', key: null })
    const later = { state: 'queued', kind, createdAfter: new Date(Date.now() + 1_000) }
    expect((await post('cancel', later)).body.changed).toBe(0)
    expect((await post('cancel', { ...later, createdAfter: new Date(0) })).body.changed).toBe(1)
  })

  test.each([
    ['retry', {}],
    ['cancel', {}],
    ['retry', { state: 'queued' }],
    ['retry', { state: 'succeeded' }],
    ['cancel', { state: 'failed' }],
    ['cancel', { state: 'queued', limit: 3 }],
  ])('refuses to %s by %j: a state that it helps must be chosen', async (verb, body) => {
    expect((await post(verb, body)).status).toBe(422)
  })
})

describe('the schedules', () => {
  const name = 'work.yearly'
  const read = async () => {
    const { items } = (await request(`${url}/schedules`)).body
    return items.find((item: { name: string }) => item.name === name)
  }
  const post = (verb: string, of = name) => request(`${url}/schedules/${of}/${verb}`, 'POST')

  test('have their cron and its time zone, their next run, and the last with its job', async () => {
    const schedule = await read()
    const timeZone = 'Asia/Kolkata'
    expect(schedule).toMatchObject({ kind: idle.name, cron: '30 3 1 1 *', timeZone })
    expect(schedule.nextRun).toMatch(/-12-31T22:00:00\.000Z$/)
    expect(Date.parse(schedule.nextRun)).toBeGreaterThan(Date.now())
    const id = await createFailed(idle.name)
    const db = service.database.withSignal()
    const slot = new Date('2098-01-01T00:17:00Z')
    await db.insertInto('job_slot').values({ schedule: name, slot, job_id: id }).execute()
    const lastRun = { slot: slot.toISOString(), jobId: id, state: 'failed' }
    expect(await read()).toMatchObject({ lastRun })
    await db.deleteFrom('job_slot').where('slot', '=', slot).execute()
  })

  test('run now, for who asks, once as long as that is unfinished', async () => {
    const { status, body } = await post('run')
    expect([status, body.kind, body.state]).toEqual([202, idle.name, 'queued'])
    expect(body.subject).toMatch(/^account:\d+$/)
    expect(body.requestId).not.toBeNull()
    expect((await post('run')).body.id).toBe(body.id)
    expect((await read()).lastRun).toMatchObject({ jobId: body.id, state: 'queued' })
  })

  test('pause and resume, as often as one asks', async () => {
    for (let time = 0; time < 2; time++) {
      expect((await post('pause')).status).toBe(204)
      expect(await read()).toMatchObject({ isPaused: true, nextRun: null })
    }
    expect((await post('run')).status).toBe(202)
    for (let time = 0; time < 2; time++) {
      expect((await post('resume')).status).toBe(204)
      expect(await read()).toMatchObject({ isPaused: false, nextRun: expect.any(String) })
    }
  })

  test.each(['run', 'pause', 'resume'])('that are not there get 404: %s', async (verb) => {
    expect((await post(verb, 'no.such')).body).toMatchObject({
      status: 404,
      detail: 'There is no schedule no.such',
    })
    expect((await post(verb, 'not%20a%20name')).status).toBe(422)
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
      subject: 'account:7',
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

test('the metrics count jobs by state and queue, in all processes together', async () => {
  const failed = await readMetric('jobs{state="failed"}')
  await createFailed('test.counted')
  await create('test.counted')
  const isCounted = async () => (await readMetric('jobs{state="failed"}')) > failed
  await until(isCounted, 'it is counted within a few seconds')
  expect(await readMetric('jobs{state="running"}')).toBe(0)
  expect(await readMetric('jobs_queued{queue="default"}')).toBeGreaterThan(0)
  expect(await readMetric('jobs_oldest_queued_seconds{queue="default"}')).toBeGreaterThan(0)
  expect(await readMetric('jobs_claim_read_seconds')).toBeLessThan(1)
})

async function readMetric(name: string): Promise<number> {
  const page = await (await fetch(`${service.opsUrl}/metrics`)).text()
  const line = page.split('\n').find((each) => each.startsWith(`${name} `))
  return Number(line?.slice(name.length))
}
