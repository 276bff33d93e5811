import type { Block } from '@offloop/loopwatch/blocking-frame'
import { readMainThreadTime } from '@offloop/loopwatch/heartbeat'
import { io, type Socket } from 'socket.io-client'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import type { ServerEvents } from '../../src/feature.ts'
import type { OpsSample } from '../../src/ops/live-samples.ts'
import type { EndedTask, PastSpans, SpanBatch, TaskSpan } from '../../src/ops/live-spans.ts'
import type { ClientEvents } from '../../src/realtime/realtime.ts'
import { type fixtureFeatures, startFixture } from '../support/fixture/features.ts'
import { startSamples } from '../support/live-samples.ts'
import { OPERATOR_AUTH } from '../support/operator.ts'
import { request } from '../support/service.ts'
import { until } from '../support/until.ts'

const MAX_SAMPLE_BYTES = 32 * 1_024
const MAX_SAMPLES = 600
/** The service takes times from a clock that nobody sets. */
const CLOCKS_DIFFER_MS = 1_000

let service: Awaited<ReturnType<typeof startFixture>>

beforeAll(async () => {
  service = await startFixture({ COMPUTE_THREADS: '2' })
})
afterAll(() => service.close())

test('a sample that fails is left out: without file descriptors the memory cannot be read', async () => {
  const { published } = startSamples({ threads: 1 })
  await until(() => published.length > 0, 'a sample')
  const read = vi.spyOn(process, 'memoryUsage').mockImplementation(() => {
    throw Object.assign(new Error('EMFILE: too many open files, uv_resident_set_memory'), {
      code: 'EMFILE',
    })
  })
  onTestFinished(() => read.mockRestore())
  await until(() => read.mock.calls.length > 0, 'one fails')
  read.mockRestore()
  const { length } = published
  await until(() => published.length > length, 'the next one comes')
})

describe('ops.sample', () => {
  test('comes once a second', () => {
    vi.useFakeTimers()
    onTestFinished(() => void vi.useRealTimers())
    const { published } = startSamples({ threads: 1 })
    vi.advanceTimersByTime(10_000)
    expect(published).toHaveLength(10)
  })

  test('has the time at which it is taken', async () => {
    const from = Date.now()
    const { samples } = await listen()
    await until(() => samples.length >= 3, 'three samples')
    const [first, second, third] = samples as [OpsSample, OpsSample, OpsSample]
    expect(second.at - first.at).toBeGreaterThan(800)
    expect(third.at - first.at).toBeGreaterThan(1_800)
    expect(first.at).toBeGreaterThan(from - CLOCKS_DIFFER_MS)
    expect(third.at).toBeLessThan(Date.now() + CLOCKS_DIFFER_MS)
  })

  test('shows the state of the process', async () => {
    const { samples } = await listen()
    // Clients of other tests may still leave.
    const sample = await until(
      () => samples.find(({ sockets }) => sockets === 1),
      'a sample with one client',
    )
    expect(sample.compute).toMatchObject({ queued: 0, running: 0 })
    expect(sample.compute.threads.map(({ name, task }) => `${name} ${task}`).toSorted()).toEqual([
      'compute-1 null',
      'compute-2 null',
    ])
    expect(sample.database).toEqual({ size: 10, inUse: expect.any(Number), waiting: 0 })
    expect(sample.memory.rss).toBeGreaterThan(sample.memory.heapUsed)
    expect(sample.loop.p50).toBeLessThanOrEqual(sample.loop.p99)
    expect(sample.loop.p99).toBeLessThanOrEqual(sample.loop.max)
    expect(sample.loop.withoutCoreMs).toBeGreaterThanOrEqual(0)
    expect(sample.loop.utilization).toBeGreaterThan(0)
    expect(sample.loop.utilization).toBeLessThanOrEqual(1)
  })

  test('shows how long the event loop was blocked, wherever in the second that began', async () => {
    const { samples } = await listen()
    for (let round = 0; round < 4; round++) {
      const elapsedMs = await blockFor(200)
      // The delay of the heartbeat: less than the whole, as it was not due at the beginning.
      await until(
        () => samples.some(({ loop }) => loop.max > elapsedMs - 25),
        `a delay of ${elapsedMs} ms`,
      )
      samples.length = 0
    }
  })

  test('counts a block for all the time that it lasted', async () => {
    const { samples } = await listen()
    // On a busy machine the process may lack a core for most of a block.
    const elapsedMs = await until(async () => {
      samples.length = 0
      const ms = await blockFor(300)
      return ms > 150 ? ms : undefined
    }, 'a block in which the process had a core')
    const sample = await until(
      () => samples.find(({ loop }) => loop.max > elapsedMs - 25),
      'the delay',
    )
    // A request at a random time of that second waited for half of it on average.
    expect(sample.loop.p99).toBeGreaterThan(sample.loop.max / 2)
  })

  test('counts the requests of its second, and shows what runs and waits', async () => {
    const { samples } = await listen()
    await Promise.all(Array.from({ length: 20 }, () => request(service.url, 'HEAD')))
    await until(
      () => samples.some(({ http }) => http.requestsPerSecond > 5),
      'the requests are counted',
    )
    const controller = new AbortController()
    const endless = Array.from({ length: 4 }, () =>
      fetch(`${service.url}/v1/work?ms=600000`, { signal: controller.signal }).catch(() => {}),
    )
    await until(
      () =>
        samples.some(
          ({ compute: { running, queued, threads } }) =>
            running === 2 && queued > 0 && allRun(threads),
        ),
      'both threads run',
    )
    controller.abort()
    await Promise.all(endless)
  })

  test('stays below 32 KiB, however many threads and tasks there are and whatever happened', async () => {
    const { samples, published } = startSamples({ threads: 256 })
    for (let index = 0; index < 100; index++)
      samples.observeTask(ended({ task: `${index}-${'long'.repeat(1_000)}` }))
    for (let index = 0; index < 1_000; index++)
      samples.observeBlock(
        block({
          at: 1_000 - index,
          blockedMs: index,
          function: 'f'.repeat(3_000),
          file: `/${'deep/'.repeat(1_000)}end.ts`,
          requestId: 'r'.repeat(128),
          route: `/${'r'.repeat(3_000)}`,
        }),
      )
    const sample = await until(() => published[0], 'a sample')
    expect(JSON.stringify(['ops.sample', sample]).length).toBeLessThan(MAX_SAMPLE_BYTES)
    expect(sample.blocks.map(({ blockedMs }) => blockedMs)).toEqual([999, 998, 997, 996, 995])
    expect(sample.blocks.map(({ at }) => at)).toEqual([1, 2, 3, 4, 5])
    expect(sample.loop.blockCount).toBe(1_000)
    expect(sample.blocks[0]?.file).toMatch(/deep\/end\.ts$/)
    expect(sample.compute.threads).toHaveLength(64)
    expect(sample.compute.kinds).toHaveLength(50)
    expect(sample.compute.kinds.at(-1)).toMatchObject({ task: 'other', done: 51 })
    expect(sample.compute.kinds[0]?.task).toHaveLength(200)
  })

  test('has occupancy and memory of each thread', async () => {
    const { samples } = await listen()
    const controller = new AbortController()
    const endless = fetch(`${service.url}/v1/work?ms=600000`, { signal: controller.signal })
    endless.catch(() => {})
    await until(
      () =>
        samples.some(({ compute: { threads } }) => {
          const busy = threads.map(({ busy }) => busy).toSorted()
          return busy[0] === 0 && (busy[1] ?? 0) > 0.9
        }),
      'one is busy',
    )
    controller.abort()
    const [thread] = samples.at(-1)?.compute.threads ?? []
    expect(thread?.memoryBytes).toBeGreaterThan(1_000_000)
    await until(
      () => samples.at(-1)?.compute.threads.every(({ busy }) => busy === 0),
      'none is busy any more',
    )
  })
})

test('a block that was not sampled is published as it is', async () => {
  const { samples, published } = startSamples({ threads: 1 })
  samples.observeBlock({ at: 1, blockedMs: 150 })
  await until(() => published.length > 0, 'a sample')
  expect(published[0]?.blocks).toEqual([{ at: 1, blockedMs: 150 }])
})

describe('kinds of tasks', () => {
  test('are counted by items, with their median run time and what waits', async () => {
    const { samples, published } = startSamples({
      threads: 1,
      counts: [['waiting', { queued: 7, running: 1 }]],
    })
    for (const runMs of [8, 9, 10, 30, 4_000]) samples.observeTask(ended({ task: 'a', runMs }))
    samples.observeTask(ended({ task: 'a', outcome: 'failed' }))
    samples.observeTask(ended({ task: 'a', outcome: 'cancelled' }))
    samples.observeTask(ended({ task: 'map', items: 10_000, runMs: 100 }))
    const { kinds } = (await until(() => published[0], 'a sample')).compute
    expect(kinds).toEqual([
      expect.objectContaining({ task: 'a', queued: 0, running: 0, done: 5, failed: 1 }),
      expect.objectContaining({ task: 'map', queued: 0, running: 0, done: 10_000, failed: 0 }),
      expect.objectContaining({ task: 'waiting', queued: 7, running: 1, done: 0, failed: 0 }),
    ])
    expect(kinds[0]?.medianMs).toBeGreaterThanOrEqual(10)
    expect(kinds[0]?.medianMs).toBeLessThan(10.91)
    expect(kinds[1]?.medianMs).toBeCloseTo(0.01, 3)
    expect(kinds[2]?.medianMs).toBeNull()
  })

  test('have a rate, which is zero some seconds after the last task', async () => {
    const { samples, published } = startSamples({ threads: 1 })
    samples.observeTask(ended())
    await until(() => published.length > 0, 'a sample')
    samples.observeTask(ended({ items: 50 }))
    const rateOf = (sample?: OpsSample) => sample?.compute.kinds[0]?.perSecond
    const risen = await until(() => published.find(rateOf), 'the rate rises')
    const seconds = (risen.at - (published[0]?.at ?? 0)) / 1_000
    expect(rateOf(risen)).toBeCloseTo(50 / seconds, 0)
    await until(() => rateOf(published.at(-1)) === 0, 'the rate falls')
  })

  test('keep their names while they wait, and further kinds are one', () => {
    vi.useFakeTimers()
    onTestFinished(() => void vi.useRealTimers())
    const counts = Array.from(
      { length: 60 },
      (_, index): [string, { queued: number; running: number }] => [
        `kind-${index}`,
        { queued: 1, running: 0 },
      ],
    )
    const { published } = startSamples({ threads: 1, counts })
    vi.advanceTimersByTime(15 * 60_000)
    const { kinds = [] } = published.at(-1)?.compute ?? {}
    expect(kinds).toHaveLength(50)
    expect(kinds[0]).toMatchObject({ task: 'kind-0', queued: 1 })
    expect(kinds.at(-1)).toMatchObject({ task: 'other', queued: 11 })
  })
})

describe('what is kept', () => {
  test('is ten minutes by any clock, and below 500 KiB', () => {
    vi.useFakeTimers()
    onTestFinished(() => void vi.useRealTimers())
    const { samples, published } = startSamples({ threads: 64 })
    for (let second = 0; second < 60 * 60; second++) {
      samples.observeTask(ended({ task: `kind-${second % 60}` }))
      if (second % 2 === 0)
        samples.observeBlock(block({ blockedMs: 60, requestId: crypto.randomUUID() }))
      vi.advanceTimersByTime(1_000)
      published.splice(0, published.length - 1)
    }
    expect(samples.all).toHaveLength(MAX_SAMPLES)
    expect(JSON.stringify(samples.all).length).toBeLessThan(500 * 1_024)
    expect(samples.all.flatMap(({ blocks }) => blocks)).toHaveLength(300)
    expect(samples.all.at(-1)?.compute.threads).toHaveLength(64)
    expect(samples.all.at(-2)?.compute).toEqual({
      queued: 0,
      running: 64,
      threads: [],
      processes: [],
      kinds: [],
    })
  })
})

test('GET /v1/ops has the last ten minutes, and the versions', async () => {
  await until(
    async () => (await request(`${service.url}/v1/ops`)).body.samples.length >= 2,
    'two samples',
  )
  const { body } = await request(`${service.url}/v1/ops`)
  expect(body.versions.node).toBe(process.versions.node)
  expect(body.versions.database).toMatch(/^\d+\.\d+/)
  expect(body.samples.map(({ at }: OpsSample) => at)).toEqual(
    body.samples.map(({ at }: OpsSample) => at).toSorted(),
  )
  expect(body.samples.length).toBeLessThanOrEqual(MAX_SAMPLES)
})

test('all events name their process, as what is read of the past does', async () => {
  const id = await until(
    async () => (await request(`${service.url}/v1/ops/processes`)).body.processes[0]?.id,
    'the process is listed',
  )
  const { socket } = await listen()
  const named = new Map<string, string>()
  for (const event of ['ops.sample', 'ops.spans', 'ops.requests'] as const)
    socket.on(event, (payload: { process: string }) => named.set(event, payload.process))
  await request(`${service.url}/v1/work?ms=1`)
  await until(() => named.size === 3, 'one of each')
  expect([...named.values()]).toEqual([id, id, id])
  for (const path of ['', '/spans', '/requests'])
    expect((await request(`${service.url}/v1/ops${path}`)).body.process).toBe(id)
})

describe('ops.spans', () => {
  test('has every task that ended, with its request', async () => {
    const from = Date.now()
    const { spans, samples } = await listen()
    const response = await fetch(`${service.url}/v1/work?ms=1`, {
      headers: { 'x-request-id': 'who-asked' },
    })
    expect(response.status).toBe(200)
    // Those of other tests may still come.
    const span = await until(
      () => spans.find(({ requestId }) => requestId === 'who-asked'),
      'its span',
    )
    expect(span).toMatchObject({ task: 'work.spin', outcome: 'succeeded', count: 1 })
    const isListed = ({ compute }: OpsSample) =>
      compute.threads.some(({ name }) => name === span.thread)
    await until(() => samples.some(isListed), 'a sample that shows the thread')
    expect(span.endedAt).toBeGreaterThan(span.startedAt)
    expect(span.startedAt).toBeGreaterThan(from - CLOCKS_DIFFER_MS)
    expect(span.endedAt).toBeLessThan(Date.now() + CLOCKS_DIFFER_MS)
    expect(span.queuedMs).toBeGreaterThanOrEqual(0)
  })

  test('is not sent to clients that have unsubscribed', async () => {
    const { socket, spans, samples } = await listen()
    await until(() => samples.length > 0, 'a sample')
    await socket.emitWithAck('unsubscribe', 'ops')
    const received = [samples.length, spans.length]
    await request(`${service.url}/v1/work?ms=1`)
    const other = await listen()
    await until(() => other.samples.length >= 2, 'two samples for somebody else')
    expect([samples.length, spans.length]).toEqual(received)
  })
})

describe('GET /v1/ops/spans', () => {
  test('has tasks that ended before anybody asked, and what runs', async () => {
    const from = Date.now()
    const headers = { 'x-request-id': 'before-anybody-asked' }
    expect((await fetch(`${service.url}/v1/work?ms=1`, { headers })).status).toBe(200)
    const controller = new AbortController()
    const endless = fetch(`${service.url}/v1/work?ms=600000`, { signal: controller.signal })
    endless.catch(() => {})
    const past = await until(async () => {
      const body: PastSpans = (await request(`${service.url}/v1/ops/spans`)).body
      const hasEnded = body.spans.some(({ requestId }) => requestId === 'before-anybody-asked')
      return hasEnded && body.running.length === 1 ? body : undefined
    }, 'the task that ended is there, and the running one alone')
    controller.abort()
    expect(past.running).toMatchObject([
      { task: 'work.spin', thread: expect.any(String), count: 1 },
    ])
    expect(past.running[0]?.startedAt).toBeGreaterThan(from - CLOCKS_DIFFER_MS)
    expect(past.running[0]?.startedAt).toBeLessThan(Date.now() + CLOCKS_DIFFER_MS)
    expect(past.startedAt).toBeLessThan(past.spans[0]?.startedAt ?? 0)
  })

  test('continues in `ops.spans` without a gap', async () => {
    const { batches } = await listen()
    const { body: past } = await request(`${service.url}/v1/ops/spans`)
    await request(`${service.url}/v1/work?ms=1`)
    await until(() => batches.some(({ spans }) => spans.length > 0), 'a batch')
    const numbers = batches.map(({ number }) => number).filter((number) => number > past.number)
    expect(numbers).toEqual(numbers.map((_, index) => past.number + 1 + index))
  })
})

const block = (rest: Partial<Block>): Block => ({
  at: Date.now(),
  blockedMs: 100,
  function: 'isPrime',
  file: '/work/src/features/orders/compute.ts',
  line: 12,
  route: '/v1/orders',
  ...rest,
})

const ended = ({ runMs = 1, ...rest }: Partial<EndedTask> = {}): EndedTask => ({
  task: 'a.task',
  thread: 'compute-1',
  outcome: 'succeeded',
  startedAt: Date.now(),
  endedAt: Date.now() + runMs,
  queuedMs: 1,
  runMs,
  items: 1,
  requestId: undefined,
  ...rest,
})

const allRun = (threads: OpsSample['compute']['threads']) =>
  threads.every(({ task }) => task === 'work.spin')

/** A client of the test's own, and all that it receives of `ops`. */
async function listen() {
  const socket: Socket<ServerEvents<typeof fixtureFeatures>, ClientEvents> = io(service.url, {
    transports: ['websocket'],
    forceNew: true,
    ...OPERATOR_AUTH,
  })
  onTestFinished(() => void socket.close())
  const samples: OpsSample[] = []
  const spans: TaskSpan[] = []
  const batches: SpanBatch[] = []
  socket.on('ops.sample', (sample: OpsSample) => samples.push(sample))
  socket.on('ops.spans', (batch: SpanBatch) => {
    batches.push(batch)
    spans.push(...batch.spans)
  })
  expect(await socket.emitWithAck('subscribe', 'ops')).toEqual({ ok: true })
  return { socket, samples, spans, batches }
}

/**
 * Blocks the event loop; for how many milliseconds at least, without those in which this process
 * had no core.
 */
async function blockFor(ms: number): Promise<number> {
  const before = readMainThreadTime().runQueueDelayNs
  const { elapsedMs } = (await request(`${service.url}/v1/work/inline?ms=${ms}`)).body
  expect(elapsedMs).toBeGreaterThan(40)
  return elapsedMs - Number(readMainThreadTime().runQueueDelayNs - before) / 1e6
}
