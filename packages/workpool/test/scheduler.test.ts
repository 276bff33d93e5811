import { MessagePort } from 'node:worker_threads'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { until } from '../../../test/support/until.ts'
import { TaskError } from '../errors.ts'
import type { Pool } from '../pool.ts'
import {
  blockEventLoop,
  blockEventLoopUntil,
  cancellation,
  expectFullSize,
  failure,
  isAlive,
  newCounter,
  occupy,
  usePool,
  watchWorkers,
} from './support/pool.ts'
import {
  blockOrNot,
  computeFor,
  count,
  countRun,
  describeThread,
  echo,
  exit,
  exitAfterwards,
  failToRead,
  give,
  Latch,
  list,
  moveBack,
  nest,
  spin,
} from './support/tasks.ts'

/** A thread's stack is deep enough to write this, the event loop's not to read it. */
const UNREADABLE_DEPTH = 8_000

describe('a short task that is sent ahead, to a thread that is busy', () => {
  test('is served by another thread when that one is blocked', async () => {
    const { pool } = await useShortTasks({ threads: 2 })
    const [long, longer] = [new Latch(), new Latch()]
    const occupied = [long, longer].map(({ cells }) => pool.run(blockOrNot, cells))
    const short = Array.from({ length: 20 }, () => pool.run(blockOrNot, null))
    expect([pool.running, pool.queued]).toEqual([2, 0])
    blockEventLoopUntil(() => long.started && longer.started)
    long.release()
    const [threadId] = await Promise.all([occupied[0], ...short])
    expect(new Set(await Promise.all(short))).toEqual(new Set([threadId]))
    longer.release()
    expect(await occupied[1]).not.toBe(threadId)
  })

  test('is served by a thread that starts, where there may be more', async () => {
    const workers = watchWorkers()
    const { pool } = await useShortTasks({ threads: 2, minThreads: 1, idleMs: 20 })
    await until(() => workers.filter(isAlive).length === 1, 'idle threads end')
    const latch = new Latch()
    const occupied = pool.run(blockOrNot, latch.cells)
    const short = pool.run(blockOrNot, null)
    blockEventLoopUntil(() => latch.started)
    const threadId = await short
    latch.release()
    expect(threadId).not.toBe(await occupied)
  })

  test('is not sent there again and again', async () => {
    const post = vi.spyOn(MessagePort.prototype, 'postMessage')
    onTestFinished(() => post.mockRestore())
    const { pool } = await useShortTasks({ threads: 2, maxQueued: 1_000 })
    const { latch } = await occupy(pool, { task: blockOrNot as never })
    post.mockClear()
    const callers = Array.from({ length: 80 }, async () => {
      for (let calls = 0; calls < 20; calls++) await pool.run(blockOrNot, null)
    })
    await Promise.all(callers)
    latch.release()
    expect(post.mock.calls.length).toBeLessThan(1.2 * 1_600)
  })

  test('survives when that thread is terminated', async () => {
    const { pool, crashes } = await useShortTasks({ threads: 1 })
    const { signal, abort, reason } = cancellation()
    const latch = new Latch()
    const counter = newCounter()
    const occupied = failure(pool.run(blockOrNot, latch.cells, { signal }))
    // Few, because on a busy machine they seem longer, and no more is sent ahead than 10 ms of
    // work.
    const short = Array.from({ length: 3 }, () => pool.run(count, counter))
    expect(pool.queued).toBe(0)
    blockEventLoopUntil(() => latch.started)
    abort()
    expect(await occupied).toBe(reason)
    expect(await Promise.all(short)).toEqual(short.map((_, place) => place))
    expect(crashes).toEqual([])
  })

  test('survives when that thread crashes; what was answered before counts', async () => {
    const { pool, crashes } = await useShortTasks({ threads: 1 })
    const ranges = [{}, {}, { exitAt: 1 }, {}, {}].map((range) => ({ from: 0, to: 3, ...range }))
    const outcomes = Promise.allSettled(ranges.map((range) => pool.run(list, range)))
    blockEventLoop(50)
    const [, , crashed, ...others] = await outcomes
    expect(crashed).toMatchObject({
      reason: { name: 'TaskError', message: expect.stringContaining('exited with code 1') },
    })
    expect(others).toMatchObject([{ value: [0, 1, 2] }, { value: [0, 1, 2] }])
    expect(crashes.length).toBe(1)
  })

  test('never runs when it is cancelled there', async () => {
    const { pool } = await useShortTasks({ threads: 1 })
    const { signal, abort, reason } = cancellation()
    const counter = newCounter()
    const latch = new Latch()
    const occupied = pool.run(blockOrNot, latch.cells)
    const cancelled = [1, 2, 3].map(() => failure(pool.run(count, counter, { signal })))
    const other = pool.run(count, counter)
    expect(pool.queued).toBe(0)
    abort()
    for (const error of await Promise.all(cancelled)) expect(error).toBe(reason)
    latch.release()
    await occupied
    expect([await other, counter[0]]).toEqual([0, 1])
  })

  test('is stopped like any other once it runs, even if the event loop does not know yet', async () => {
    const { pool, crashes } = await useShortTasks({ threads: 1 })
    const { signal, abort, reason } = cancellation()
    const latch = new Latch()
    const before = pool.run(blockOrNot, null)
    const occupied = failure(pool.run(blockOrNot, latch.cells, { signal }))
    const after = pool.run(blockOrNot, null)
    blockEventLoopUntil(() => latch.started)
    abort()
    expect(await occupied).toBe(reason)
    expect(await before).toBeGreaterThan(0)
    expect(await after).not.toBe(await before)
    expect(crashes).toEqual([])
    await expectFullSize(pool, 1)
  })

  test('has no transferred buffers: those go to a thread that is free', async () => {
    const { pool } = await useShortTasks({ threads: 1 })
    const latch = new Latch()
    const occupied = pool.run(blockOrNot, latch.cells)
    const bytes = new Uint8Array(8)
    const moved = pool.run(moveBack, bytes, { transfer: [bytes.buffer] })
    expect(pool.queued).toBe(1)
    latch.release()
    await occupied
    expect((await moved).byteLength).toBe(8)
  })
})

describe('no task runs twice', () => {
  test('whatever happens to the threads', async () => {
    const { pool } = await useShortTasks({ threads: 3, maxQueued: 1_000 })
    const runs = new Int32Array(new SharedArrayBuffer(4 * 400))
    const killing = Array.from({ length: 30 }, (_, index) =>
      failure(
        index % 2
          ? pool.run(exit, 1)
          : pool.run(spin, new Latch().cells, { timeoutMs: 20 * index + 1 }),
      ),
    )
    const counting = Array.from({ length: 400 }, async (_, place) => {
      await pool.run(countRun, { runs, place, ms: 0 })
      if (place % 100 === 0) killing.push(failure(pool.run(exit, 1)))
    })
    await Promise.all([...killing, ...counting])
    expect(runs.toSorted()).toEqual(new Int32Array(400).fill(1))
    await expectFullSize(pool, 3)
  })

  test('and none is lost to a thread that ends after its answer', async () => {
    const { pool } = await usePool({ threads: 1 })
    const counter = newCounter()
    for (let round = 0; round < 5; round++) {
      await pool.run(exitAfterwards, null)
      expect(await pool.run(count, counter)).toBe(round)
    }
  })

  test.each([1, 300])(
    'and none is sent again while its thread still receives it, beside %i callers',
    async (callers) => {
      const post = vi.spyOn(MessagePort.prototype, 'postMessage')
      onTestFinished(() => post.mockRestore())
      const { pool } = await useShortTasks({ threads: 2, maxQueued: 1_000 })
      for (let times = 0; times < 20; times++) await pool.run(echo, null)
      const large = Array.from({ length: 300_000 }, (_, index) => ({ index }))
      let isBack = false
      const back = pool.run(echo, large).finally(() => {
        isBack = true
      })
      // Whenever one of these ends, the pool looks for what an idle thread could take over.
      const calling = Array.from({ length: callers }, async () => {
        while (!isBack) await pool.run(blockOrNot, null)
      })
      expect(await back).toHaveLength(300_000)
      expect(post.mock.calls.filter(([message]) => message[4] === large)).toHaveLength(1)
      await Promise.all(calling)
    },
  )

  test('nor does one that a thread cannot even receive end all threads, one after the other', async () => {
    const { pool, crashes } = await usePool({ threads: 2, maxHeapMb: 16 })
    const tooLarge = Array.from({ length: 500_000 }, (_, index) => ({ index }))
    const error = await failure(pool.run(echo, tooLarge))
    expect(error).toBeInstanceOf(TaskError)
    expect(error.message).toMatch(/memory/)
    expect(crashes.length).toBe(2)
    await expectFullSize(pool, 2)
  })
})

describe('threads', () => {
  test('beyond the minimum end when they are idle, and come back when they are needed', async () => {
    const workers = watchWorkers()
    const { pool, crashes } = await usePool({ threads: 3, minThreads: 1, idleMs: 20 })
    expect(workers.length).toBe(3)
    await until(() => workers.filter(isAlive).length === 1, 'idle threads end')
    await expectFullSize(pool, 3)
    await until(() => workers.filter(isAlive).length === 1, 'they end again')
    expect(await pool.run(echo, 'still there')).toBe('still there')
    expect(crashes).toEqual([])
  })

  test('stay when they are the minimum, or have work', async () => {
    const workers = watchWorkers()
    const { pool } = await usePool({ threads: 3, minThreads: 1, idleMs: 20 })
    const holds = [await occupy(pool), await occupy(pool)]
    await until(() => workers.filter(isAlive).length === 2, 'the idle one ends')
    for (const { latch } of holds) latch.release()
    expect(new Set(await Promise.all(holds.map(({ occupied }) => occupied))).size).toBe(2)
  })
})

describe('a message that cannot be read', () => {
  test.each([
    ['alone', []],
    ['right behind another', [1]],
  ])('here, %s: its call fails, and the thread is replaced', async (_, before) => {
    const { pool, crashes } = await usePool({ threads: 1 })
    await pool.run(nest, 1)
    const readable = before.map((depth) => pool.run(nest, depth))
    const unreadable = failure(pool.run(nest, UNREADABLE_DEPTH))
    const next = pool.run(echo, 'next')
    // The answers arrive together.
    blockEventLoop(20)
    expect(await Promise.all(readable)).toEqual(before.map(() => []))
    expect(await unreadable).toMatchObject({
      name: 'TaskError',
      message: expect.stringContaining('call stack'),
    })
    expect(await next).toBe('next')
    expect(crashes).toEqual([expect.stringContaining('call stack')])
  })

  test('on the thread: so it does there', async () => {
    const { pool, crashes } = await usePool({ threads: 1 })
    const error = await failure(pool.run(failToRead, 'unreadable', { timeoutMs: 5_000 }))
    expect(error).toMatchObject({
      name: 'TaskError',
      message: expect.stringContaining('unreadable'),
    })
    expect(crashes).toEqual(['unreadable'])
    await expectFullSize(pool, 1)
  })
})

describe('jobs', () => {
  const job = { priority: 'batch' } as const

  test('leave one thread to the requests', async () => {
    const { pool } = await usePool({ threads: 3 })
    const latches = Array.from({ length: 4 }, () => new Latch())
    const jobs = latches.map(({ cells }) => pool.run(blockOrNot, cells, job))
    expect([pool.running, pool.queued]).toEqual([2, 2])
    expect(await pool.run(echo, 'a request')).toBe('a request')
    for (const latch of latches) latch.release()
    await Promise.all(jobs)
  })

  test('leave it also where they are short, and are sent ahead', async () => {
    const { pool } = await useShortTasks({ threads: 2 })
    const latches = Array.from({ length: 4 }, () => new Latch())
    const jobs = latches.map(({ cells }) => pool.run(blockOrNot, cells, job))
    expect(pool.running).toBe(1)
    expect(await pool.run(echo, 'a request')).toBe('a request')
    expect(pool.running).toBe(1)
    for (const latch of latches) latch.release()
    await Promise.all(jobs)
  })

  test('have the only thread, where there is one', async () => {
    const { pool } = await usePool({ threads: 1 })
    expect(await pool.run(echo, 'a job', job)).toBe('a job')
  })

  test.each([1, 2])('get their share while requests saturate %i threads', async (threads) => {
    const { pool, timings } = await usePool({ threads, maxQueued: 1_000 })
    const requests = Array.from({ length: 200 }, () => pool.run(computeFor, 2))
    const jobs = Array.from({ length: 20 }, () => pool.run(give, 2, job))
    await Promise.all(jobs)
    const spentMs = timings.reduce((total, { runMs }) => total + runMs, 0)
    const jobsMs = timings.reduce(
      (total, { task, runMs }) => total + (task === give.name ? runMs : 0),
      0,
    )
    expect(jobsMs / spentMs).toBeGreaterThan(0.12)
    expect(jobsMs / spentMs).toBeLessThan(0.4)
    await Promise.all(requests)
  })

  test('do not starve requests, however many of them there are', async () => {
    const { pool, timings } = await usePool({ threads: 2, maxQueued: 1_000 })
    const jobs = Array.from({ length: 300 }, () => pool.run(computeFor, 2, job))
    await until(() => timings.length > 20, 'jobs are on their way')
    const before = timings.length
    await Promise.all(Array.from({ length: 40 }, () => pool.run(echo, 'a request')))
    expect(timings.length - before - 40).toBeLessThan(20)
    await Promise.all(jobs)
  })

  test('that fill their queue do not refuse a request, nor the other way round', async () => {
    const { pool } = await usePool({ threads: 2, maxQueued: 3 })
    const holds = [await occupy(pool), await occupy(pool)]
    const jobs = [1, 2, 3].map((index) => pool.run(echo, index, job))
    await expect(pool.run(echo, 4, job)).rejects.toMatchObject({ code: 'overloaded' })
    const requests = [1, 2, 3].map((index) => pool.run(echo, index))
    await expect(pool.run(echo, 4)).rejects.toMatchObject({ code: 'overloaded' })
    for (const { latch } of holds) latch.release()
    expect(await Promise.all([...jobs, ...requests])).toEqual([1, 2, 3, 1, 2, 3])
  })
})

describe('callers with keys', () => {
  test('take turns: one with much to do does not delay another', async () => {
    const { pool, timings } = await usePool({ threads: 1, maxQueued: 100 })
    const greedy = Promise.allSettled(
      Array.from({ length: 50 }, () => pool.run(computeFor, 6, { key: 'greedy' })),
    )
    await pool.run(describeThread, null, { key: 'modest' })
    expect(timings.length).toBeLessThanOrEqual(3)
    await pool[Symbol.asyncDispose]()
    await greedy
  })
})

/** A pool that knows how short its tasks are. */
async function useShortTasks(options: Parameters<typeof usePool>[0]) {
  const opened = await usePool(options)
  await learn(opened.pool)
  return opened
}

async function learn(pool: Pool) {
  // On a busy machine one of them may seem long.
  for (let times = 0; times < 20; times++) {
    await pool.run(blockOrNot, null)
    await pool.run(count, newCounter())
    await pool.run(list, { from: 0, to: 3 })
    await pool.run(moveBack, new Uint8Array(1))
    await pool.run(countRun, { runs: newCounter(), place: 0, ms: 0 })
  }
}
