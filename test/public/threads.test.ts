import { beforeEach, describe, expect, test } from 'vitest'
import type { OpsSample } from '../../src/ops/live-samples.ts'
import type { PastSpans, SpanBatch, TaskSpan } from '../../src/ops/live-spans.ts'

// The page's scripts have a type check of their own.
const load = (path: string) => import(new URL(`../../public/${path}`, import.meta.url).href)
const { SpanStore } = await load('panels/threads/spans.js')
const { toSteps, describe: inWords, toBlockBar, toOpenBar } = await load('panels/threads/bars.js')
const { mergeSamples } = await load('processes.js')

const BEGIN = 1_800_000_000_000
const MINUTE_MS = 60_000
const MAX_SPANS = 30_000

let store: InstanceType<typeof SpanStore>

beforeEach(() => {
  store = new SpanStore()
})

describe('the tasks of a page', () => {
  test('are those of the past and of all batches since, each once', () => {
    store.expectPast()
    store.add(batch(4, [span(1)]))
    store.add(batch(5, [span(2)]))
    store.load(past({ number: 4, spans: [span(0), span(1)] }), BEGIN)
    store.add(batch(6, [span(3)]))
    expect(starts()).toEqual([0, 1, 2, 3])
  })

  test('are complete again after a connection that was lost', () => {
    store.load(past({ number: 1, spans: [span(0)] }), BEGIN)
    expect(store.gaps).toEqual([{ from: 0, to: BEGIN - MINUTE_MS }])
    store.disconnect(BEGIN + 1_000)
    store.expectPast()
    store.load(past({ number: 9, spans: [span(0), span(10_000)] }), BEGIN + 30_000)
    expect(starts()).toEqual([0, 10_000])
    expect(store.gaps).toEqual([{ from: 0, to: BEGIN - MINUTE_MS }])
  })

  test('of a process that is gone stay, with a gap up to the start of the next', () => {
    store.load(past({ number: 9, spans: [span(0)] }), BEGIN)
    store.disconnect(BEGIN + 1_000)
    store.expectPast()
    const next = past({ number: 1, startedAt: BEGIN + 5_000, spans: [span(6_000)] })
    store.load(next, BEGIN + 7_000)
    expect(starts()).toEqual([0, 6_000])
    expect(store.gaps.at(-1)).toEqual({ from: BEGIN + 1_000, to: BEGIN + 5_000 })
  })

  test.each(['before', 'after'])(
    'of the process before come first, with a gap in between, if they are put there %s the past was read',
    (when) => {
      const earlier = new SpanStore()
      earlier.load(past({ number: 9, spans: [span(0)] }), BEGIN)
      earlier.disconnect(BEGIN + 1_000)
      const next = past({ number: 1, startedAt: BEGIN + 5_000, spans: [span(6_000)] })
      if (when === 'before') store.adopt(earlier)
      store.load(next, BEGIN + 7_000)
      if (when === 'after') store.adopt(earlier)
      store.add(batch(2, [span(8_000)]))
      expect(starts()).toEqual([0, 6_000, 8_000])
      expect(store.gaps).toEqual([
        { from: 0, to: BEGIN - MINUTE_MS },
        { from: BEGIN + 1_000, to: BEGIN + 5_000 },
      ])
    },
  )

  test('go on where the past cannot be read', () => {
    store.expectPast()
    store.add(batch(1, [span(0)]))
    store.load(undefined, BEGIN + 10)
    store.add(batch(2, [span(20)]))
    expect(starts()).toEqual([0, 20])
    expect(store.gaps).toEqual([{ from: 0, to: BEGIN + 10 }])
  })

  test('that run are those of the last batch, and none without a connection', () => {
    const running = { task: 'long', thread: 'compute-1', startedAt: BEGIN, count: 1 }
    store.load(past({ running: [running] }), BEGIN)
    expect(store.running).toEqual([running])
    store.add({ ...batch(2, []), running: [{ ...running, progress: 0.5 }] })
    expect(store.running).toEqual([{ ...running, progress: 0.5 }])
    store.disconnect(BEGIN)
    expect(store.running).toEqual([])
  })

  test('have a lane for each worker there is, also an idle one, and for no other without tasks', () => {
    store.load(past({ spans: [span(0, { thread: 'process-1' })] }), BEGIN)
    store.keepSince(BEGIN - 1, ['compute-10', 'compute-2'])
    expect([...store.lanes.keys()]).toEqual(['compute-2', 'compute-10', 'process-1'])
    store.keepSince(BEGIN + MINUTE_MS, ['compute-2'])
    expect([...store.lanes.keys()]).toEqual(['compute-2'])
  })

  test.each([MAX_SPANS, 1_000])(
    'are bounded to %i in eight hours, whatever runs',
    (max) => {
      store.max = max
      let most = 0
      for (let second = 0; second < 8 * 60 * 60; second++) {
        const now = BEGIN + second * 1_000
        const spans = Array.from({ length: 60 }, (_, place) =>
          span(second * 1_000 + place * 16, {
            thread: `compute-${place % 8}`,
            task: `task-${(place >> 3) % 2}`,
          }),
        )
        store.add({ ...batch(second, spans), leftOut: 3 })
        store.keepSince(now - 10 * MINUTE_MS, ['compute-1'])
        if (second % 60 === 0) most = Math.max(most, store.all.length)
      }
      expect(most).toBeGreaterThan(max / 2)
      expect(most).toBeLessThanOrEqual(max)
      expect(store.leftOut).toBeLessThanOrEqual(3 * 60 * 10 + 3)
    },
    60_000,
  )
})

describe('the depth of the queue', () => {
  test('is that of the time before its sample, and unknown where samples are missing', () => {
    const samples = [sample(0, 1), sample(1_000, 2), sample(2_100, 3), sample(9_000, 4)]
    expect(toSteps(samples)).toEqual([
      { from: BEGIN - 1_000, to: BEGIN, queued: 1 },
      { from: BEGIN, to: BEGIN + 1_000, queued: 2 },
      { from: BEGIN + 1_000, to: BEGIN + 2_100, queued: 3 },
      { from: BEGIN + 8_000, to: BEGIN + 9_000, queued: 4 },
    ])
  })
})

describe('samples', () => {
  test('are each there once, after the past was read again', () => {
    const known = [sample(0), sample(1_000), sample(5_000)]
    const read = [sample(1_000), sample(2_000), sample(3_000), sample(4_000)]
    expect(times(mergeSamples(known, read))).toEqual([0, 1_000, 2_000, 3_000, 4_000, 5_000])
    expect(times(mergeSamples([], read))).toEqual([1_000, 2_000, 3_000, 4_000])
    expect(times(mergeSamples(known, []))).toEqual([0, 1_000, 5_000])
  })

  test('are those of ten minutes, only the newest with its workers', () => {
    let samples: OpsSample[] = []
    for (let second = 0; second < 8 * 60 * 60; second++)
      samples = mergeSamples(samples, [sample(second * 1_000)])
    expect(samples).toHaveLength(600)
    expect(samples.filter(({ compute }) => compute.threads.length > 0)).toEqual(samples.slice(-1))
  })
})

describe('a bar in words', () => {
  test('says what it is, how long and how it ended', () => {
    expect(inWords(span(0, { count: 1_000, outcome: 'deadline_exceeded' }), BEGIN)).toEqual({
      what: 'a.task × 1,000',
      length: '1 ms',
      waited: '2 ms',
      outcome: 'deadline exceeded',
    })
  })

  test('says how far a running task is', () => {
    const running = { task: 'long', thread: 'process-1', startedAt: BEGIN, count: 1, progress: 0.5 }
    expect(inWords(toOpenBar(running), BEGIN + 3_210)).toMatchObject({
      what: 'long',
      length: '3.2 s',
      outcome: 'running, 50 % done',
    })
  })

  test('says what blocked the event loop, if that was sampled', () => {
    const block = { at: BEGIN, blockedMs: 120, route: '/v1/orders' }
    const sampled = { ...block, function: 'isPrime', file: '/src/features/compute.ts', line: 12 }
    expect(inWords(toBlockBar(sampled), BEGIN)).toMatchObject({
      what: 'Blocked by isPrime (compute.ts:12)',
      length: '120 ms',
      outcome: '/v1/orders',
    })
    expect(inWords(toBlockBar(block), BEGIN).what).toBe('Blocked by code that was not sampled')
  })
})

const starts = () => store.all.map(({ startedAt }: TaskSpan) => startedAt - BEGIN)

const times = (samples: OpsSample[]) => samples.map(({ at }) => at - BEGIN)

const span = (offset: number, rest: Partial<TaskSpan> = {}): TaskSpan => ({
  task: 'a.task',
  thread: 'compute-1',
  startedAt: BEGIN + offset,
  endedAt: BEGIN + offset + 1,
  queuedMs: 2,
  runMs: 1,
  outcome: 'succeeded',
  count: 1,
  ...rest,
})

const batch = (number: number, spans: TaskSpan[]): SpanBatch => ({
  number,
  spans,
  leftOut: 0,
  running: [],
})

const past = (rest: Partial<PastSpans>): PastSpans => ({
  startedAt: BEGIN - MINUTE_MS,
  number: 1,
  spans: [],
  leftOut: 0,
  running: [],
  ...rest,
})

const sample = (offset: number, queued = 0) =>
  ({
    at: BEGIN + offset,
    compute: {
      queued,
      running: 0,
      threads: [{ name: 'compute-1', task: null, busy: 0, memoryBytes: 1 }],
      processes: [],
      kinds: [],
    },
  }) as unknown as OpsSample
