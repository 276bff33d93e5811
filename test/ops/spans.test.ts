import type { Timing } from '@offloop/workpool/timing'
import { describe, expect, test } from 'vitest'
import { Spans } from '../../src/ops/spans.ts'

const MAX_SPANS = 50
const BEGIN = 1_800_000_000_000

test('looks at no task while nobody listens', () => {
  const spans = new Spans()
  spans.observe(timing())
  expect(spans.take()).toBeUndefined()
})

test('gives each task once, as it was', () => {
  const spans = listening()
  spans.observe(timing({ startedAt: BEGIN + 0.25, runMs: 2.5, queuedMs: 1, requestId: 'who' }))
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
    const spans = listening()
    for (let place = 0; place < 300; place++)
      spans.observe(timing({ startedAt: BEGIN + place * 0.1, runMs: 0.05 }))
    spans.observe(timing({ startedAt: BEGIN + 30, runMs: 40 }))
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
    const spans = listening()
    for (let place = 0; place < 20_000; place++)
      spans.observe(
        timing({
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

  test('those that are not alike are not one; the longest are told, and how many are not', () => {
    const spans = listening()
    for (let place = 0; place < 400; place++)
      spans.observe(
        timing({ task: `task-${place % 2}`, startedAt: BEGIN + place, runMs: place / 1_000 }),
      )
    const batch = spans.take()
    expect(batch?.spans).toHaveLength(MAX_SPANS)
    expect(Math.min(...(batch?.spans.map(({ runMs }) => runMs) ?? []))).toBeCloseTo(0.35, 2)
    expect(batch?.leftOut).toBe(350)
  })

  test('one of several requests names none of them', () => {
    const spans = listening()
    for (let place = 0; place < 60; place++)
      spans.observe(
        timing({ startedAt: BEGIN + place * 0.01, runMs: 0.01, requestId: `r${place}` }),
      )
    expect(spans.take()?.spans[0]?.requestId).toBeUndefined()
  })
})

function listening() {
  const spans = new Spans()
  spans.listening = true
  return spans
}

function timing({ startedAt = BEGIN, runMs = 1, ...rest }: Partial<Timing> = {}): Timing {
  return {
    task: 'a.task',
    thread: 'compute-1',
    outcome: 'succeeded',
    items: 1,
    queuedAt: startedAt - 1,
    startedAt,
    endedAt: startedAt + runMs,
    queuedMs: 1,
    runMs,
    bytesIn: 0,
    bytesOut: 0,
    requestId: undefined,
    ...rest,
  }
}
