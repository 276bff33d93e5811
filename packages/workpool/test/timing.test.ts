import { describe, expect, test } from 'vitest'
import { failure, occupy, usePool } from './support/pool.ts'
import { computeFor, double, echo, spin } from './support/tasks.ts'

describe('a timing', () => {
  test('is consistent: queued, then started, then ended', async () => {
    const { pool, timings } = await usePool({ threads: 1 })
    const from = performance.timeOrigin + performance.now()
    await Promise.all([5, 10, 5, 1].map((ms) => pool.run(computeFor, ms)))
    const to = performance.timeOrigin + performance.now()
    expect(timings.length).toBe(4)
    for (const { queuedAt, startedAt, endedAt, queuedMs, runMs } of timings) {
      expect(queuedAt).toBeGreaterThanOrEqual(from)
      expect(endedAt).toBeLessThanOrEqual(to + CLOCKS_APART_MS)
      expect(startedAt - queuedAt).toBeCloseTo(queuedMs, 3)
      expect(endedAt - startedAt).toBeCloseTo(runMs, 3)
      expect(queuedMs).toBeGreaterThan(-CLOCKS_APART_MS)
    }
    for (const [index, next] of timings.slice(1).entries())
      expect(next.startedAt).toBeGreaterThanOrEqual(
        (timings[index]?.endedAt ?? 0) - CLOCKS_APART_MS,
      )
  })

  test('says on whose behalf a task, or each chunk of a map, ran', async () => {
    const { pool, timings } = await usePool({ threads: 1 })
    await pool.run(echo, 'one', { requestId: 'who-ran', trace: 'of-run' })
    await pool.map(double, [1, 2, 3], { requestId: 'who-mapped', trace: 'of-map' })
    await pool.run(echo, 'nobody')
    const requestIds = timings.map(({ requestId }) => requestId)
    expect([requestIds[0], requestIds.at(-1)]).toEqual(['who-ran', undefined])
    expect(new Set(requestIds.slice(1, -1))).toEqual(new Set(['who-mapped']))
    const traces = new Set(timings.map(({ trace }) => trace))
    expect([...traces]).toEqual(['of-run', 'of-map', undefined])
  })

  test('of a chunk counts its items', async () => {
    const { pool, timings } = await usePool()
    await pool.map(double, Array(500).fill(1))
    expect(timings.reduce((total, { items }) => total + items, 0)).toBe(500)
  })

  test('comes also for what disposing cut off, and not for what waited', async () => {
    const { pool, timings } = await usePool({ threads: 1 })
    await occupy(pool, { task: spin })
    const waiting = failure(pool.run(echo, 'waits'))
    await pool[Symbol.asyncDispose]()
    await waiting
    expect(timings).toMatchObject([{ task: spin.name, outcome: 'cancelled' }])
    expect(timings[0]?.runMs).toBeGreaterThan(0)
  })
})

/** Each thread has a clock of its own; they start from the same one. */
const CLOCKS_APART_MS = 1
