import { describe, expect, test } from 'vitest'
import { failure, hold, useCompute } from '../../../test/support/compute.ts'
import { computeFor, double, echo, moveBack, spin } from '../../../test/support/tasks.ts'
import { bytesOf } from '../timing.ts'

const MiB = 1 << 20

describe('a timing', () => {
  test('is consistent: queued, then started, then ended', async () => {
    const { compute, timings } = await useCompute({ threads: 1 })
    const from = performance.timeOrigin + performance.now()
    await Promise.all([5, 10, 5, 1].map((ms) => compute.run(computeFor, ms)))
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
    const { compute, timings } = await useCompute({ threads: 1 })
    await compute.run(echo, 'one', { requestId: 'who-ran' })
    await compute.map(double, [1, 2, 3], { requestId: 'who-mapped' })
    await compute.run(echo, 'nobody')
    const requestIds = timings.map(({ requestId }) => requestId)
    expect([requestIds[0], requestIds.at(-1)]).toEqual(['who-ran', undefined])
    expect(new Set(requestIds.slice(1, -1))).toEqual(new Set(['who-mapped']))
  })

  test('of a chunk counts its items', async () => {
    const { compute, timings } = await useCompute()
    await compute.map(double, Array(500).fill(1))
    expect(timings.reduce((total, { items }) => total + items, 0)).toBe(500)
    for (const { items, bytesIn, bytesOut } of timings)
      expect([bytesIn, bytesOut]).toEqual([8 * items, 8 * items])
  })

  test('says about how many bytes were sent and given, copied or moved, but not shared', async () => {
    const { compute, timings } = await useCompute({ threads: 1 })
    const bytes = new Uint8Array(MiB)
    await compute.run(moveBack, bytes, { transfer: [bytes.buffer] })
    await compute.run(echo, new Float64Array(MiB))
    await compute.run(echo, compute.share(Float64Array, MiB))
    await failure(compute.run(computeFor, 1n as never))
    expect(timings.map(({ bytesIn, bytesOut }) => [bytesIn, bytesOut])).toEqual([
      [MiB, MiB],
      [8 * MiB, 8 * MiB],
      [0, 0],
      [8, 0],
    ])
  })

  test('comes also for what disposing cut off, and not for what waited', async () => {
    const { compute, timings } = await useCompute({ threads: 1 })
    await hold(compute, { task: spin })
    const waiting = failure(compute.run(echo, 'waits'))
    await compute[Symbol.asyncDispose]()
    await waiting
    expect(timings).toMatchObject([{ task: spin.name, outcome: 'cancelled' }])
    expect(timings[0]?.runMs).toBeGreaterThan(0)
  })
})

describe('the size of a value', () => {
  test.each([
    ['a number', 1, 8],
    ['nothing', undefined, 8],
    ['a string', 'abc', 3],
    ['bytes', new Uint8Array(10), 10],
    ['a buffer', new ArrayBuffer(10), 10],
    ['shared memory', new SharedArrayBuffer(10), 0],
    ['numbers', [1, 2, 3], 24],
    ['an object', { ab: 1, cd: [1, 2] }, 2 + 8 + 2 + 16],
    ['a map', new Map([['ab', 1]]), 10],
    ['a set', new Set([1, 2]), 16],
    ['an empty array', [], 0],
  ])('%s', (_, value, bytes) => {
    expect(bytesOf(value)).toBe(bytes)
  })

  test('is judged by the first members of what is large', () => {
    expect(bytesOf(Array(1_000_000).fill('ab'))).toBe(2_000_000)
    expect(bytesOf(new Set(Array(1_000).keys()))).toBe(8_000)
    expect(
      bytesOf(Object.fromEntries(Array.from({ length: 1_000 }, (_, key) => [1_000 + key, 1]))),
    ).toBe(12_000)
  })

  test('takes no time, also where much is in it again and again, or it holds itself', () => {
    let nested: unknown = 1
    for (let depth = 0; depth < 10; depth++) nested = Array(1_000).fill(nested)
    const cyclic: unknown[] = []
    cyclic.push(...Array(1_000).fill(cyclic))
    const startedAt = performance.now()
    expect(bytesOf(nested) + bytesOf(cyclic)).toBeGreaterThanOrEqual(0)
    // All of it would be hours.
    expect(performance.now() - startedAt).toBeLessThan(2_000)
  })
})

/** Each thread has a clock of its own; they start from the same one. */
const CLOCKS_APART_MS = 1
