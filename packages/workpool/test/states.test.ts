import { describe, expect, test } from 'vitest'
import { until } from '../../../test/support/until.ts'
import type { Pool } from '../pool.ts'
import { blockEventLoop, failure, occupy, usePool } from './support/pool.ts'
import {
  computeFor,
  double,
  echo,
  exit,
  give,
  Latch,
  progressFor,
  spin,
  write,
} from './support/tasks.ts'

const isolated = { isolation: 'process' } as const

describe('the states of workers', () => {
  test('are those of all threads, and say nothing of idle ones', async () => {
    const { pool } = await usePool({ threads: 2 })
    const byName = pool.workerStates().toSorted((a, b) => a.name.localeCompare(b.name))
    expect(byName).toEqual(
      ['compute-1', 'compute-2'].map((name) => ({
        name,
        kind: 'thread',
        busyMs: 0,
        memoryBytes: undefined,
        running: undefined,
      })),
    )
  })

  test('name what a thread runs, since when and for which request', async () => {
    const { pool } = await usePool({ threads: 1 })
    const begunAt = Date.now()
    const { latch, occupied } = await occupy(pool, { requestId: 'who-asked' })
    const running = pool.workerStates()[0]?.running
    expect(running).toMatchObject({ task: 'test.block-deaf', items: 1, requestId: 'who-asked' })
    expect(running?.startedAt).toBeGreaterThan(begunAt - 100)
    expect(running?.startedAt).toBeLessThanOrEqual(Date.now() + 1)
    latch.release()
    await occupied
    expect(pool.workerStates()[0]?.running).toBeUndefined()
  })

  test('name a replacement like the thread that it replaces', async () => {
    const { pool } = await usePool({ threads: 2 })
    const names = () => pool.workerStates().map(({ name }) => name)
    for (let crash = 0; crash < 3; crash++) {
      await failure(pool.run(exit, 1))
      await until(() => names().length === 2, 'there is a replacement')
    }
    expect(names().toSorted()).toEqual(['compute-1', 'compute-2'])
  })

  test('have the progress, also of a task whose caller does not ask for it', async () => {
    const { pool } = await usePool({ threads: 1 })
    const done = pool.run(progressFor, 400)
    const progress = await until(() => pool.workerStates()[0]?.running?.progress, 'it is reported')
    expect(progress).toBeGreaterThan(0)
    expect(progress).toBeLessThanOrEqual(1)
    await done
    const next = pool.run(computeFor, 20)
    expect(pool.workerStates()[0]?.running).toMatchObject({ progress: undefined })
    await next
  })

  test('are also those of child processes', async () => {
    const { pool } = await usePool({ threads: 1 })
    const done = pool.run(progressFor, 400, isolated)
    const findProcess = () => pool.workerStates().find(({ kind }) => kind === 'process')
    await until(() => findProcess()?.running?.progress, 'it reports')
    expect(findProcess()?.running).toMatchObject({ task: progressFor.name })
    pool.measureMemory()
    if (process.platform === 'linux') {
      const bytes = await until(() => findProcess()?.memoryBytes, 'its memory is measured')
      expect(bytes).toBeGreaterThan(10_000_000)
    }
    await done
  })

  test('tell how long a worker ran tasks, the current one included', async () => {
    const { pool } = await usePool({ threads: 1 })
    const busyMs = () => pool.workerStates()[0]?.busyMs ?? 0
    const { latch, occupied } = await occupy(pool)
    await until(() => busyMs() >= 50, 'it is busy')
    latch.release()
    await occupied
    const first = busyMs()
    expect(first).toBeGreaterThanOrEqual(50)
    await pool.run(computeFor, 30)
    expect(busyMs()).toBeGreaterThanOrEqual(first + 30)
  })

  test('do not call a thread busy while the event loop is blocked, and its answer waits', async () => {
    const { pool } = await usePool({ threads: 1 })
    const done = pool.run(computeFor, 10)
    blockEventLoop(300)
    await done
    expect(pool.workerStates()[0]?.busyMs).toBeLessThan(200)
  })

  test("have a thread's heap, measured while it runs a task that never ends", async () => {
    const { pool } = await usePool({ threads: 1 })
    const { signal, abort } = aborting()
    const latch = new Latch()
    const endless = failure(pool.run(spin, latch.cells, { signal }))
    await latch.untilStarted()
    pool.measureMemory()
    const bytes = await until(() => pool.workerStates()[0]?.memoryBytes, 'the heap is measured')
    expect(bytes).toBeGreaterThan(1_000_000)
    abort()
    await endless
  })
})

describe('the items that wait and run', () => {
  test('are counted by task', async () => {
    const { pool } = await usePool({ threads: 1 })
    const { latch, occupied } = await occupy(pool)
    const waiting = [pool.run(echo, 1), pool.run(echo, 2), pool.run(double, 3)]
    expect(counts(pool)).toEqual({
      'test.block-deaf': { queued: 0, running: 1 },
      'test.echo': { queued: 2, running: 0 },
      'test.double': { queued: 1, running: 0 },
    })
    latch.release()
    await Promise.all([occupied, ...waiting])
    expect(counts(pool)).toEqual({})
  })

  test('are those of a map, not its chunks, until it has ended', async () => {
    const { pool } = await usePool({ threads: 1 })
    const { latch, occupied } = await occupy(pool)
    const map = pool.map(double, numbersTo(10_000)).then((all) => all)
    expect(counts(pool)['test.double']).toEqual({ queued: 10_000, running: 0 })
    latch.release()
    await occupied
    await map
    expect(counts(pool)).toEqual({})
  })

  test('become fewer as a map goes on', async () => {
    const { pool } = await usePool({ threads: 1 })
    const seen: { done: number; left: number }[] = []
    const onProgress = ({ done }: { done: number }) => {
      const { queued, running } = counts(pool)['test.give'] ?? { queued: 0, running: 0 }
      seen.push({ done, left: queued + running })
    }
    await pool.map(give, Array<number>(60).fill(1), { onProgress })
    // What a chunk had no time for is counted a moment later.
    for (const { done, left } of seen) expect(done + left).toBeLessThanOrEqual(60)
    expect(seen.some(({ done, left }) => done + left === 60)).toBe(true)
    expect(counts(pool)).toEqual({})
  })

  test('are not those that a lazy source has not given yet', async () => {
    const { pool } = await usePool({ threads: 1 })
    const { latch, occupied } = await occupy(pool)
    const map = pool.map(write, lazily(10_000)).then((all) => all)
    expect(counts(pool)['test.write']).toEqual({ queued: 0, running: 0 })
    latch.release()
    await occupied
    await map
    expect(counts(pool)).toEqual({})
  })

  test('leave nothing behind of a map that failed or that nobody reads', async () => {
    const { pool } = await usePool({ threads: 1 })
    const controller = new AbortController()
    const failed = failure(pool.map(give, Array(500).fill(5), { signal: controller.signal }))
    await until(() => (counts(pool)['test.give']?.queued ?? 0) > 0, 'it has begun')
    controller.abort(new Error('Nobody waits'))
    await failed
    for await (const _ of pool.map(double, numbersTo(10_000))) break
    await until(() => pool.running === 0 && Object.keys(counts(pool)).length === 0, 'all are gone')
  })
})

const counts = (pool: Pool) => Object.fromEntries(pool.countItems())

const numbersTo = (count: number) => Array.from({ length: count }, (_, n) => n)

function* lazily(count: number) {
  for (let n = 0; n < count; n++) yield n
}

function aborting() {
  const controller = new AbortController()
  return { signal: controller.signal, abort: () => controller.abort(new Error('Enough')) }
}
