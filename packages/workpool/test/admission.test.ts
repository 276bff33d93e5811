import { describe, expect, test } from 'vitest'
import type { OverloadedError } from '../errors.ts'
import { maxWaitMs, willMissDeadline } from '../policy.ts'
import type { Pool } from '../pool.ts'
import { task } from '../task.ts'
import { cancellation, failure, occupy, usePool } from './support/pool.ts'
import { computeFor, computePieces, echo, endlessly, give } from './support/tasks.ts'

/** Some 100 ms of work. */
const WORK = { pieces: 100, ms: 1 }

describe('the wait', () => {
  test.each([
    ['is half of the time that the caller gives', { timeoutMs: 5_000 }, 0, 2_500],
    ['leaves twice what the task takes', { timeoutMs: 5_000 }, 2_000, 1_000],
    ['is a tenth of it, however long the task takes', { timeoutMs: 5_000 }, 9_000, 500],
    ['is worth refusing from 100 ms on', { timeoutMs: 20 }, 0, 100],
    ['is bounded for requests without a deadline', {}, 0, 30_000],
    [
      'is not for jobs, which have a deadline of their own',
      { priority: 'batch' },
      0,
      Number.POSITIVE_INFINITY,
    ],
  ] as const)('%s', (_, options, leastMs, expected) => {
    expect(maxWaitMs(options, leastMs)).toBe(expected)
  })

  test('ends in a refusal when it is too long, not at once, and says when to come back; other work waits on', async () => {
    const { pool, timings } = await usePool({ threads: 1 })
    await pool.run(computeFor, 300)
    const { latch } = await occupy(pool)
    const waiting = Array.from({ length: 20 }, () => pool.run(computeFor, 1))
    const askedAt = performance.now()
    const refused = [
      pool.run(echo, 'late', { timeoutMs: 600 }),
      pool.map(echo, ['late'], { timeoutMs: 600 }),
      pool.run(echo, 'late', { timeoutMs: 600, key: 'another caller' }),
    ]
    for (const refusal of (await Promise.all(refused.map(failure))) as OverloadedError[]) {
      expect(refusal).toMatchObject({ code: 'overloaded' })
      // Twenty runs wait.
      expect(refusal.retryAfterMs).toBeGreaterThan(19 * (timings[0]?.runMs ?? 0))
      expect(refusal.retryAfterMs).toBeLessThan(21 * (timings[0]?.runMs ?? 0))
    }
    expect(performance.now() - askedAt).toBeGreaterThan(295)
    expect(pool.queued).toBe(20)
    latch.release()
    await Promise.all(waiting)
  })

  test('is shorter where what is left would not be enough for the task', async () => {
    const { pool } = await usePool({ threads: 1 })
    await pool.run(computeFor, 900)
    await occupy(pool)
    // Half of their time would be 1 000 ms and 800 ms: only what the first one takes makes it the
    // first to be refused.
    const refused: string[] = []
    await Promise.all(
      [[computeFor, 2_000] as const, [give, 1_600] as const].map(async ([task, timeoutMs]) => {
        expect(await failure(pool.run(task, 1, { timeoutMs }))).toMatchObject({
          code: 'overloaded',
        })
        refused.push(task.name)
      }),
    )
    expect(refused).toEqual([computeFor.name, give.name])
  })

  test('of a map that is refused has cost no more than that of a call: no stack, nothing cut, nothing taken', async () => {
    const { pool, timings } = await usePool({ threads: 1 })
    const asked: unknown[] = []
    const cut = task<number, number>('test.double', {
      split(number) {
        asked.push(number)
        return [number]
      },
      join: (left) => left,
    })
    const source = {
      [Symbol.iterator]() {
        asked.push('source')
        return [1].values()
      },
    }
    await occupy(pool)
    for (const map of [
      pool.map(cut, [1], { timeoutMs: 1_000 }).reduce(0),
      pool.map(cut, source, { timeoutMs: 1_000 }),
    ]) {
      const refusal = await failure(map)
      expect(refusal).toMatchObject({ code: 'overloaded' })
      expect(refusal.stack).not.toContain('    at ')
    }
    expect([asked, timings]).toEqual([[], []])
  })

  test('of thousands of maps costs the event loop little', async () => {
    const { pool } = await usePool({ threads: 1 })
    await occupy(pool)
    const before = performance.eventLoopUtilization()
    const refused = Array.from({ length: 5_000 }, () =>
      failure(pool.map(computePieces, [WORK], { timeoutMs: 1_000, key: 'greedy' }).reduce(0)),
    )
    await Promise.all(refused)
    // 2 ms each is what they cost when each of them launched its pieces.
    expect(performance.eventLoopUtilization(before).active).toBeLessThan(0.2 * 5_000)
  })
})

describe('work that has begun', () => {
  test.each(['runs', 'maps'])(
    'ends well, however many callers ask again and again: %s',
    async (kind) => {
      const { pool, timings } = await usePool({ threads: 2 })
      const begin =
        kind === 'runs' ? (options: object) => pool.run(computeFor, 100, options) : mapOn(pool)
      let succeeded = 0
      let other = 0
      const endAt = performance.now() + 3_000
      const client = async (name: string) => {
        for (let asked = 0; performance.now() < endAt; asked++) {
          const requestId = `${name}:${asked}`
          await begin({ key: 'all of them', timeoutMs: 2_000, requestId }).then(
            () => succeeded++,
            (error) => {
              if (error.code !== 'overloaded') other++
            },
          )
        }
      }
      await Promise.all(Array.from({ length: 200 }, (_, index) => client(String(index))))
      const begun = new Set(timings.map(({ requestId }) => requestId))
      expect(succeeded).toBeGreaterThan(3)
      // Little is begun in vain, on a machine that is busy with much else, too: without the bounds
      // on time next to nothing ends.
      expect(succeeded / begun.size).toBeGreaterThan(0.5)
      expect(other / begun.size).toBeLessThan(0.5)
    },
  )

  test('leaves the threads to others as soon as its pieces show that it cannot end in time', async () => {
    const { pool } = await usePool({ threads: 2 })
    const askedAt = performance.now()
    const error = await failure(
      pool.map(computePieces, [{ pieces: 1_000, ms: 20 }], { timeoutMs: 4_000 }).reduce(0),
    )
    expect(error).toMatchObject({
      code: 'deadline_exceeded',
      message: expect.stringMatching(/would take longer than 4000 ms: \d %/),
    })
    expect(performance.now() - askedAt).toBeLessThan(2_500)
  })

  test('of other items is not judged by the first of them: they may be the longest', async () => {
    const { pool } = await usePool({ threads: 2 })
    const items = [...Array(16).fill(20), ...Array(5_000).fill(0)]
    await pool.map(computeFor, items, { timeoutMs: 20_000 })
  })
})

test.each([
  ['too early to say', 3.5, 5_000, false],
  ['twice as long as there is time', 4, 1_005, true],
  ['a little late', 4, 995, false],
])('a map that will miss its deadline: %s', (_, chunksPerThread, expectedMs, expected) => {
  expect(willMissDeadline(chunksPerThread, expectedMs, 500)).toBe(expected)
})

describe('callers', () => {
  test.each(['runs', 'maps'])(
    'get equal shares, whatever each of them asks for: %s',
    async (kind) => {
      const { pool, timings } = await usePool({ threads: 2 })
      const begin =
        kind === 'runs' ? (options: object) => pool.run(computeFor, 5, options) : mapOn(pool)
      const endAt = performance.now() + 2_000
      const ask = async (requestId: string) => {
        while (performance.now() < endAt) await begin({ key: requestId, requestId })
      }
      // A run is on one thread only, and asks for the next when it has ended: some must wait all
      // the time.
      const modest = kind === 'runs' ? 4 : 1
      await Promise.all([...Array(30).fill('greedy'), ...Array(modest).fill('modest')].map(ask))
      const before = timings.filter(({ endedAt }) => endedAt < performance.timeOrigin + endAt)
      const spentMs = (by: string) =>
        before.reduce((total, { requestId, runMs }) => total + (requestId === by ? runMs : 0), 0)
      expect(spentMs('modest') / (spentMs('modest') + spentMs('greedy'))).toBeGreaterThan(1 / 3)
    },
  )

  test.each([
    ['of another caller', 'somebody else'],
    ['of the same caller', 'long'],
    ['of callers without a key', undefined],
  ])('do not wait for a long map with what is short: runs %s', async (_, key) => {
    const { pool, timings } = await usePool({ threads: 2 })
    const long = pool
      .map(computePieces, [{ pieces: 500, ms: 10 }], { key: key && 'long' })
      .reduce(0)
    await pool.run(computeFor, 1, { key })
    /** How many pieces of the map were done while each of them waited. */
    const pieces: number[] = []
    for (let asked = 0; asked < 10; asked++) {
      const { length } = timings
      await pool.run(computeFor, 1, { key })
      pieces.push(
        timings
          .slice(length)
          .reduce((total, { items, task }) => total + (task === computePieces.name ? items : 0), 0),
      )
    }
    expect(pieces.toSorted((one, other) => one - other)[5]).toBeLessThan(25)
    expect(await long).toBe(500)
  })

  test('have their maps begun one after the other, in order', async () => {
    const { pool, timings } = await usePool({ threads: 2 })
    const ids = ['first', 'second', 'third', 'fourth']
    await Promise.all(
      ids.map((requestId) => pool.map(computePieces, [WORK], { key: 'one', requestId }).reduce(0)),
    )
    const begun = timings
      .toSorted((one, other) => one.startedAt - other.startedAt)
      .map(({ requestId }) => requestId)
    expect([...new Set(begun)]).toEqual(ids)
  })

  test('may run a map for each result of another', async () => {
    const { pool } = await usePool({ threads: 1 })
    const busy = pool.run(endlessly, null, { timeoutMs: 500, key: 'busy' }).catch(() => {})
    let total = 0
    for await (const number of pool.map(echo, [1, 2, 3], { key: 'nested' }))
      for (const other of await pool.map(echo, [number, number], { key: 'nested' }))
        total += other as number
    expect(total).toBe(12)
    await busy
  })

  test('that leave take along what waited for them', async () => {
    const { pool, timings } = await usePool({ threads: 1 })
    const { latch, occupied } = await occupy(pool)
    const { signal, abort, reason } = cancellation()
    const left = [pool.run(echo, 1, { signal }), pool.map(echo, [1], { signal })].map(failure)
    abort()
    for (const error of await Promise.all(left)) expect(error).toBe(reason)
    expect(pool.queued).toBe(0)
    latch.release()
    await occupied
    expect(timings).toHaveLength(1)
  })
})

const mapOn = (pool: Pool) => (options: object) =>
  pool.map(computePieces, [WORK], options).reduce(0)
