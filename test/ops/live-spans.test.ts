import { describe, expect, test } from 'vitest'
import { LiveSpans } from '../../src/ops/live-spans.ts'

type Ended = Parameters<LiveSpans['observe']>[0]

const MAX_SPANS = 50
const BEGIN = 1_800_000_000_000

test('ignores tasks while nobody subscribes', () => {
  const spans = new LiveSpans()
  spans.observe(ended())
  expect(spans.take()).toBeUndefined()
})

test('returns each task once, as it was', () => {
  const spans = subscribed()
  spans.observe(ended({ startedAt: BEGIN + 0.25, runMs: 2.5, queuedMs: 1, requestId: 'who' }))
  expect(spans.take()).toEqual({
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
  })
  expect(spans.take()).toBeUndefined()
})

describe('when there are many', () => {
  test('short neighbours become one, and long ones stay what they are', () => {
    const spans = subscribed()
    for (let place = 0; place < 300; place++)
      spans.observe(ended({ startedAt: BEGIN + place * 0.1, runMs: 0.05 }))
    spans.observe(ended({ startedAt: BEGIN + 30, runMs: 40 }))
    const batch = spans.take()
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
    const spans = subscribed()
    for (let place = 0; place < 20_000; place++)
      spans.observe(
        ended({
          thread: `compute-${place % 16}`,
          startedAt: BEGIN + place / 100,
          runMs: 0.01,
          requestId: `r${place % 3}`,
        }),
      )
    const batch = spans.take()
    expect(JSON.stringify(batch).length).toBeLessThan(16 * 1_024)
    const counted = batch?.spans.reduce((total, { count }) => total + count, 0) ?? 0
    expect(counted + (batch?.leftOut ?? 0)).toBe(20_000)
  })

  test('spans that are not alike stay apart; the longest are sent, and the number of the others', () => {
    const spans = subscribed()
    for (let place = 0; place < 400; place++)
      spans.observe(
        ended({ task: `task-${place % 2}`, startedAt: BEGIN + place, runMs: place / 1_000 }),
      )
    const batch = spans.take()
    expect(batch?.spans).toHaveLength(MAX_SPANS)
    expect(Math.min(...(batch?.spans.map(({ runMs }) => runMs) ?? []))).toBeCloseTo(0.35, 2)
    expect(batch?.leftOut).toBe(350)
  })

  test('one of several requests names none of them', () => {
    const spans = subscribed()
    for (let place = 0; place < 60; place++)
      spans.observe(ended({ startedAt: BEGIN + place * 0.01, runMs: 0.01, requestId: `r${place}` }))
    expect(spans.take()?.spans[0]?.requestId).toBeUndefined()
  })
})

function subscribed() {
  const spans = new LiveSpans()
  spans.isSubscribed = true
  return spans
}

function ended({ startedAt = BEGIN, runMs = 1, ...rest }: Partial<Ended> = {}): Ended {
  return {
    task: 'a.task',
    thread: 'compute-1',
    outcome: 'succeeded',
    startedAt,
    endedAt: startedAt + runMs,
    queuedMs: 1,
    runMs,
    requestId: undefined,
    ...rest,
  }
}
