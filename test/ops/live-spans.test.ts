import type { WorkerState } from '@offloop/workpool/pool'
import { describe, expect, test } from 'vitest'
import { type EndedTask, LiveSpans } from '../../src/ops/live-spans.ts'

const MAX_SPANS = 50
const MAX_KEPT = 2_000
const BEGIN = 1_800_000_000_000
const MINUTE_MS = 60_000

describe('a batch', () => {
  test('has each task once, as it was', () => {
    const spans = new LiveSpans()
    spans.observe(ended({ startedAt: BEGIN + 0.25, runMs: 2.5, queuedMs: 1, requestId: 'who' }))
    expect(spans.take([])).toEqual({
      number: 1,
      spans: [
        {
          task: 'a.task',
          thread: 'compute-1',
          startedAt: BEGIN + 0.25,
          endedAt: BEGIN + 2.75,
          queuedMs: 1,
          runMs: 2.5,
          outcome: 'succeeded',
          requestId: 'who',
          count: 1,
        },
      ],
      leftOut: 0,
      running: [],
    })
    expect(spans.take([])).toBeUndefined()
  })

  test('counts the items of a chunk', () => {
    const spans = new LiveSpans()
    spans.observe(ended({ items: 1_000 }))
    expect(spans.take([])?.spans[0]?.count).toBe(1_000)
  })

  test('has what runs, and comes when that changes', () => {
    const spans = new LiveSpans()
    expect(spans.take([idle()])).toBeUndefined()
    const running = { task: 'long.task', startedAt: BEGIN, requestId: 'who', count: 1 }
    expect(spans.take([busy(running)])?.running).toEqual([{ ...running, thread: 'compute-1' }])
    expect(spans.take([busy(running)])).toBeUndefined()
    const further = { ...running, progress: 0.5 }
    expect(spans.take([busy(further)])?.running).toEqual([{ ...further, thread: 'compute-1' }])
    expect(spans.take([idle()])).toEqual({ number: 3, spans: [], leftOut: 0, running: [] })
    expect(spans.take([idle()])).toBeUndefined()
  })
})

describe('when there are many', () => {
  test('short neighbours become one, and long ones stay what they are', () => {
    const spans = new LiveSpans()
    for (let place = 0; place < 300; place++)
      spans.observe(ended({ startedAt: BEGIN + place * 0.1, runMs: 0.05 }))
    spans.observe(ended({ startedAt: BEGIN + 30, runMs: 40 }))
    const batch = spans.take([])
    expect(batch?.spans.length).toBeLessThanOrEqual(MAX_SPANS)
    expect(batch?.spans.reduce((total, { count }) => total + count, 0)).toBe(301)
    expect(batch?.spans.reduce((total, { runMs }) => total + runMs, 0)).toBeCloseTo(
      300 * 0.05 + 40,
      1,
    )
    expect(batch?.spans.at(-1)).toMatchObject({ runMs: 40, count: 1 })
    expect(batch?.leftOut).toBe(0)
  })

  test('a batch stays below some KiB with tens of thousands of them, and none is lost from the count', () => {
    const spans = new LiveSpans()
    for (let place = 0; place < 20_000; place++)
      spans.observe(
        ended({
          thread: `compute-${place % 16}`,
          startedAt: BEGIN + place / 100,
          runMs: 0.01,
          requestId: `r${place % 3}`,
        }),
      )
    const batch = spans.take([])
    expect(JSON.stringify(batch).length).toBeLessThan(16 * 1_024)
    const counted = batch?.spans.reduce((total, { count }) => total + count, 0) ?? 0
    expect(counted + (batch?.leftOut ?? 0)).toBe(20_000)
  })

  test.each([
    { order: 'the longest last', tasks: 400, toMs: (place: number) => place / 1_000 },
    { order: 'the longest first', tasks: 400, toMs: (place: number) => (399 - place) / 1_000 },
    { order: 'many, the longest first', tasks: 4_000, toMs: (place: number) => 4 - place / 1_000 },
  ])(
    'those that are not alike are sent by length, and the number of the others: $order',
    ({ tasks, toMs }) => {
      const spans = new LiveSpans()
      for (let place = 0; place < tasks; place++)
        spans.observe(
          ended({ task: `task-${place % 2}`, startedAt: BEGIN + place * 5, runMs: toMs(place) }),
        )
      const batch = spans.take([])
      expect(batch?.spans).toHaveLength(MAX_SPANS)
      const lengths = Array.from({ length: tasks }, (_, place) => toMs(place)).toSorted(
        (a, b) => b - a,
      )
      expect(Math.min(...(batch?.spans.map(({ runMs }) => runMs) ?? []))).toBeCloseTo(
        lengths[MAX_SPANS - 1] ?? 0,
        2,
      )
      expect(batch?.leftOut).toBe(tasks - MAX_SPANS)
    },
  )

  test('one of several requests names none of them', () => {
    const spans = new LiveSpans()
    for (let place = 0; place < 60; place++)
      spans.observe(ended({ startedAt: BEGIN + place * 0.01, runMs: 0.01, requestId: `r${place}` }))
    expect(spans.take([])?.spans.at(-1)?.requestId).toBeUndefined()
  })
})

describe('the past', () => {
  test('has what was published, and its number, so that no task is shown twice', () => {
    const spans = new LiveSpans()
    spans.observe(ended())
    const { number, spans: sent } = spans.take([busy({ task: 'long.task' })], BEGIN) ?? {}
    spans.observe(ended({ startedAt: BEGIN + 10 }))
    expect(spans.past(BEGIN)).toMatchObject({ number, spans: sent, leftOut: 0 })
    expect(spans.past(BEGIN).running).toMatchObject([{ task: 'long.task' }])
    expect(spans.past(BEGIN).startedAt).toBeLessThan(Date.now())
  })

  test('ends after ten minutes', () => {
    const spans = new LiveSpans()
    spans.observe(ended())
    spans.take([], BEGIN)
    expect(spans.past(BEGIN + 9.9 * MINUTE_MS).spans).toHaveLength(1)
    expect(spans.past(BEGIN + 10.1 * MINUTE_MS).spans).toEqual([])
  })

  test('still has a long task and a report after 10 000 tiny ones of several kinds', () => {
    const spans = new LiveSpans()
    spans.observe(ended({ task: 'long.task', thread: 'compute-1', runMs: 60_000 }))
    spans.observe(ended({ task: 'report', thread: 'process-3', runMs: 4_000 }))
    for (let place = 0; place < 10_000; place++) {
      const startedAt = BEGIN + 60_000 + place * 20
      const tiny = { task: `tiny-${place % 3}`, thread: 'compute-2', startedAt, runMs: 0.5 }
      spans.observe(ended(tiny))
      if (place % 12 === 0) spans.take([], startedAt)
    }
    spans.take([], BEGIN + 5 * MINUTE_MS)
    const past = spans.past(BEGIN + 5 * MINUTE_MS)
    expect(past.spans).toContainEqual(expect.objectContaining({ task: 'long.task' }))
    expect(past.spans).toContainEqual(expect.objectContaining({ task: 'report' }))
    expect(past.spans.length).toBeLessThanOrEqual(MAX_KEPT)
    const shown = past.spans.reduce((total, { count }) => total + count, 0)
    expect(shown + past.leftOut).toBe(10_002)
  })

  test('is bounded in eight hours of any number of tasks', () => {
    const spans = new LiveSpans()
    const batches = 8 * 60 * 60 * 4
    for (let batch = 0; batch < batches; batch++) {
      const now = BEGIN + batch * 250
      for (let place = 0; place < 4; place++)
        spans.observe(
          ended({
            task: `task-${(batch + place) % 3}`,
            thread: `compute-${place}`,
            startedAt: now,
            runMs: 200,
            requestId: crypto.randomUUID(),
          }),
        )
      spans.take([], now + 250)
      if (batch % 10_000 !== 0) continue
      expect(JSON.stringify(spans.past(now)).length).toBeLessThan(500 * 1_024)
    }
    const { spans: kept } = spans.past(BEGIN + batches * 250)
    expect(kept.length).toBeLessThanOrEqual(MAX_KEPT)
    expect(kept[0]?.endedAt).toBeGreaterThan(BEGIN + batches * 250 - 10 * MINUTE_MS)
  })
})

function ended({ startedAt = BEGIN, runMs = 1, ...rest }: Partial<EndedTask> = {}): EndedTask {
  return {
    task: 'a.task',
    thread: 'compute-1',
    outcome: 'succeeded',
    startedAt,
    endedAt: startedAt + runMs,
    queuedMs: 1,
    runMs,
    items: 1,
    requestId: undefined,
    ...rest,
  }
}

const idle = (): WorkerState => ({
  name: 'compute-1',
  kind: 'thread',
  busyMs: 0,
  memoryBytes: undefined,
  running: undefined,
})

const busy = ({
  task,
  startedAt = BEGIN,
  count = 1,
  progress,
  requestId,
}: {
  task: string
  startedAt?: number
  count?: number
  progress?: number
  requestId?: string
}): WorkerState => ({
  ...idle(),
  running: { task, startedAt, items: count, progress, requestId },
})
