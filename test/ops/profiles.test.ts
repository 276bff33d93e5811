import { Watchdog } from '@offloop/loopwatch/watchdog'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { useDatabase } from '../support/database.ts'
import { startFixture, useFixture } from '../support/fixture/features.ts'
import { AS_OPERATOR } from '../support/operator.ts'
import { useProcess } from '../support/process.ts'
import { request } from '../support/service.ts'
import { until } from '../support/until.ts'

let service: Awaited<ReturnType<typeof startFixture>>
let profiles: string

beforeAll(async () => {
  service = await startFixture({ COMPUTE_THREADS: '1', REQUEST_TIMEOUT_MS: '4000' })
  profiles = `${service.url}/v1/ops/profiles`
})
afterAll(() => service.close())

const record = (input: object, url = profiles) => request(url, 'POST', input)
const end = (url = profiles) => request(`${url}/current`, 'DELETE')

const begin = vi.spyOn(Watchdog.prototype, 'profile')

/** Resolves once the service, which runs in this process, has begun another recording. */
async function untilBegun() {
  begin.mockClear()
  await until(() => begin.mock.calls.length > 0, 'it is being recorded')
}

async function startRecording(input: object, base = service.url) {
  const recording = record(input, `${base}/v1/ops/profiles`)
  await untilBegun()
  return { recording }
}

interface CpuProfile {
  nodes: { id: number; callFrame: { functionName: string }; children?: number[] }[]
  samples: number[]
  startTime: number
  endTime: number
}

/** The share of a function and all that it called in the samples of a thread that was not idle. */
function shareOf(name: string, { nodes, samples }: CpuProfile): number {
  const parents = new Map(
    nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id])),
  )
  const names = new Map(nodes.map(({ id, callFrame }) => [id, callFrame.functionName]))
  const isWithin = (id: number | undefined): boolean =>
    id !== undefined && (names.get(id) === name || isWithin(parents.get(id)))
  const busy = samples.filter((id) => names.get(id) !== '(idle)')
  return busy.filter(isWithin).length / busy.length
}

describe('POST /v1/ops/profiles', () => {
  test('shows what blocks the event loop, beyond the deadline of other requests', async () => {
    const { recording } = await startRecording({ target: 'event-loop', seconds: 5 })
    await request(`${service.url}/v1/work/inline?ms=3000`)
    const { status, headers, body } = await recording
    expect(status).toBe(200)
    expect(headers.get('content-disposition')).toMatch(
      /^attachment; filename="event-loop-\d{8}T\d{6}Z\.cpuprofile"$/,
    )
    expect(Number(headers.get('content-length'))).toBeGreaterThan(1_000)
    expect(body.endTime - body.startTime).toBeGreaterThanOrEqual(5_000_000)
    expect(shareOf('spin', body)).toBeGreaterThan(0.5)
  })

  test('shows what a worker thread runs; ended early, until then', async () => {
    const { recording } = await startRecording({ target: 'compute-1', seconds: 30 })
    await request(`${service.url}/v1/work?ms=1500`)
    expect((await end()).status).toBe(204)
    const { headers, body } = await recording
    expect(headers.get('content-disposition')).toContain('"compute-1-')
    expect(body.endTime - body.startTime).toBeLessThan(30_000_000)
    expect(shareOf('spin', body)).toBeGreaterThan(0.5)
  })

  test.each([
    [{ seconds: 4 }, 'body.seconds'],
    [{ seconds: 31 }, 'body.seconds'],
    [{ seconds: 5.5 }, 'body.seconds'],
    [{ seconds: '5' }, 'body.seconds'],
    [{ target: 'watchdog' }, 'body.target'],
    [{ target: '' }, 'body.target'],
    [{ thread: 'compute-1' }, 'body.thread'],
  ])('refuses %j', async (input, path) => {
    const { status, body } = await record(input)
    expect([status, body.code, body.errors[0].path]).toEqual([422, 'invalid', path])
  })

  test('names the targets that there are', async () => {
    const { body } = await record({ target: 'compute-99' })
    // A thread that was terminated has a successor with another name, or none yet.
    expect(body.errors[0].message).toMatch(/^Must be one of event-loop(, compute-\d+)*$/)
  })

  test('records one profile at a time', async () => {
    const { recording } = await startRecording({ seconds: 30 })
    const { status, body } = await record({ seconds: 5 })
    expect([status, body.code]).toEqual([409, 'conflict'])
    expect((await end()).status).toBe(204)
    expect((await recording).status).toBe(200)
    expect((await end()).status).toBe(404)
  })

  test('stops when the client leaves', async () => {
    const leaving = new AbortController()
    const { signal } = leaving
    const headers = { ...AS_OPERATOR, 'content-type': 'application/json' }
    const recording = fetch(profiles, { method: 'POST', headers, body: '{"seconds":30}', signal })
    recording.catch(() => {})
    await untilBegun()
    leaving.abort()
    const canRecord = async () => (await record({ seconds: 5 })).status === 200
    await until(canRecord, 'another profile can be recorded')
  })

  test('a service that stops ends it, and answers', async () => {
    const { url, stop } = await useFixture()
    const { recording } = await startRecording({ seconds: 30 }, url)
    await stop()
    const { status, body } = await recording
    expect(status).toBe(200)
    expect(body.endTime - body.startTime).toBeLessThan(30_000_000)
  })
})

describe('the heap', () => {
  test('GET /v1/ops/heap has its spaces', async () => {
    const { body } = await request(`${service.url}/v1/ops/heap`)
    expect(body.used).toBeGreaterThan(0)
    expect(body.total).toBeLessThanOrEqual(body.limit)
    expect(body.spaces.map(({ name }: { name: string }) => name)).toContain('old_space')
    expect(body.snapshot).toMatchObject({ allowed: false })
  })

  test('a snapshot is taken in development only', async () => {
    const refused = await request(`${service.url}/v1/ops/heap-snapshot`, 'POST')
    expect([refused.status, refused.body.code]).toEqual([404, 'not_found'])
    expect(refused.body.detail).toContain('NODE_ENV=development')

    // In a process whose heap is smaller than that of the tests.
    const { url: DATABASE_URL } = await useDatabase()
    const main = useProcess('test/support/fixture/main.ts', {
      DATABASE_URL,
      NODE_ENV: 'development',
    })
    const url = await main.url()
    expect((await request(`${url}/v1/ops/heap`)).body.snapshot.allowed).toBe(true)
    const { status, headers, body } = await request(`${url}/v1/ops/heap-snapshot`, 'POST')
    expect(status).toBe(200)
    expect(headers.get('content-disposition')).toMatch(/"heap-\d{8}T\d{6}Z\.heapsnapshot"/)
    expect(body.nodes).toHaveLength(
      body.snapshot.node_count * body.snapshot.meta.node_fields.length,
    )
  })
})
