import { getPriority } from 'node:os'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { until } from '../../../test/support/until.ts'
import type { Outcome } from '../call.ts'
import type { OverloadedError } from '../errors.ts'
import { TaskError } from '../errors.ts'
import type { Timing } from '../pool.ts'
import { Pool } from '../pool.ts'
import type { Task } from '../task.ts'
import {
  blockEventLoop,
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
  blockAsking,
  blockDeaf,
  type Cells,
  computeFor,
  computePieces,
  count,
  describeThread,
  echo,
  endWhenCancelled,
  exhaustMemory,
  exit,
  fail,
  giveFunction,
  giveThenable,
  Latch,
  leaveBehind,
  neverEnd,
  nowhere,
  progressFor,
  spin,
  spinOverArrays,
  throwFunction,
  throwLater,
  watchCancelled,
} from './support/tasks.ts'

describe('a task', () => {
  test('runs on a thread with its input and resolves with its output', async () => {
    const { pool } = await usePool()
    expect(await pool.run(echo, { from: 1, to: [2, 3] })).toEqual({ from: 1, to: [2, 3] })
    expect(await pool.run(echo, undefined)).toBeUndefined()
  })

  test.each([
    ['typed arrays', new Float64Array([1.5, -0, Number.NaN])],
    ['maps and sets', new Map<unknown, unknown>([['a', new Set([1n, 2n])]])],
    ['dates', new Date('2026-11-20T12:00:00.000Z')],
    ['bytes', new Uint8Array([0, 255]).buffer],
    ['errors', new TypeError('as a value')],
    ['cycles', cyclic()],
  ])('takes and gives %s', async (_, value) => {
    const { pool } = await usePool()
    expect(await pool.run(echo, value)).toEqual(value)
  })

  test('sees shared memory as it is, not a copy', async () => {
    const { pool } = await usePool()
    const counter = newCounter()
    await pool.run(count, counter)
    expect(counter[0]).toBe(1)
  })

  test('runs on another thread than the event loop, with nothing of the environment', async () => {
    const { pool } = await usePool()
    const { isMainThread, threadId, environment } = await pool.run(describeThread, null)
    expect({ isMainThread, environment }).toEqual({
      isMainThread: false,
      environment: ['NODE_COMPILE_CACHE'],
    })
    expect(threadId).toBeGreaterThan(0)
  })

  test.runIf(process.platform === 'linux')(
    'has the lowest priority, the event loop keeps its own',
    async () => {
      const before = getPriority()
      const { pool } = await usePool()
      expect((await pool.run(describeThread, null)).priority).toBe(19)
      expect(getPriority()).toBe(before)
      expect(before).toBeLessThan(19)
    },
  )

  test('runs at the same time as others, each on a thread of its own', async () => {
    const { pool } = await usePool({ threads: 3 })
    await expectFullSize(pool, 3)
  })
})

describe('progress', () => {
  test('is reported a few times a second, as it grows', async () => {
    const { pool } = await usePool({ threads: 1 })
    const reported: number[] = []
    const startedAt = performance.now()
    await pool.run(progressFor, 450, { onProgress: (fraction) => reported.push(fraction) })
    expect(reported.length).toBeGreaterThan(1)
    expect(reported.length).toBeLessThanOrEqual(2 + (performance.now() - startedAt) / 100)
    expect(reported).toEqual(reported.toSorted())
    expect(reported.at(-1)).toBeLessThanOrEqual(1)
  })

  test('of a cancelled task is not reported', async () => {
    const { pool } = await usePool({ threads: 1 })
    const { abort, signal, reason } = cancellation()
    const reported: number[] = []
    const onProgress = (fraction: number) => {
      reported.push(fraction)
      abort()
    }
    await expect(pool.run(progressFor, 400, { signal, onProgress })).rejects.toBe(reason)
    await until(() => pool.running === 0, 'it is terminated')
    expect(reported.length).toBe(1)
  })

  test('is nothing to a caller who does not ask for it', async () => {
    const { pool } = await usePool({ threads: 1 })
    expect(await pool.run(progressFor, 5)).toBeUndefined()
  })
})

describe('the queue', () => {
  test('is served in the order of the calls', async () => {
    const { pool } = await usePool({ threads: 1 })
    const counter = newCounter()
    const { occupied, latch } = await occupy(pool)
    const places = Array.from({ length: 20 }, () => pool.run(count, counter))
    expect([pool.running, pool.queued]).toEqual([1, 20])
    latch.release()
    expect(await Promise.all(places)).toEqual(places.map((_, place) => place))
    await occupied
    expect([pool.running, pool.queued]).toEqual([0, 0])
  })

  test('is bounded in number, because of memory: one more is refused at once, with the time to try again', async () => {
    const { pool } = await usePool({ threads: 1, maxQueued: 3 })
    const { latch } = await occupy(pool)
    const leaving = new AbortController()
    const waiting = [pool.run(echo, 0), pool.map(echo, [1]).then(([output]) => output)]
    const gone = pool.run(echo, 'gone', { signal: leaving.signal })
    const refused = { code: 'overloaded', retryAfterMs: expect.any(Number) }
    await expect(pool.run(echo, 'too many')).rejects.toMatchObject(refused)
    await expect(pool.map(echo, [0])).rejects.toMatchObject(refused)

    leaving.abort()
    await expect(gone).rejects.toBe(leaving.signal.reason)
    const taken = pool.run(echo, 'in its place')
    latch.release()
    expect(await taken).toBe('in its place')
    expect(await Promise.all(waiting)).toEqual([0, 1])
  })

  test('asks clients to wait longer, the longer its tasks take', async () => {
    const { pool } = await usePool({ threads: 1, maxQueued: 50 })
    await pool.run(computeFor, 300)
    const { latch } = await occupy(pool)
    const waiting = Array.from({ length: 50 }, () => pool.run(echo, 0))
    const refusal = (await failure(pool.run(echo, 0))) as OverloadedError
    expect(refusal.retryAfterMs).toBeGreaterThan(1_000)
    latch.release()
    await Promise.all(waiting)
  })
})

describe('what goes wrong in a task is its own failure', () => {
  test('an exception: the cause has its message and the stack of the thread', async () => {
    const { pool, crashes } = await usePool()
    const error = await failure(pool.run(fail, 'out of range'))
    expect(error).toBeInstanceOf(TaskError)
    expect(error.message).toBe('The task test.fail failed: out of range')
    expect(error.cause).toMatchObject({ name: 'RangeError', message: 'out of range' })
    expect((error.cause as Error).stack).toContain('support/worker.ts')
    expect(crashes).toEqual([])
  })

  test('a name that no thread knows: the error says it', async () => {
    const { pool } = await usePool()
    const error = await failure(pool.run(nowhere, null))
    expect(error).toBeInstanceOf(TaskError)
    expect(error.message).toContain('test.nowhere')
  })

  test('an input that cannot be sent: the thread is not even disturbed', async () => {
    const { pool, crashes, timings } = await usePool({ threads: 1 })
    const { threadId } = await pool.run(describeThread, null)
    const { latch } = await occupy(pool)
    const inputs = [() => {}, Symbol('no'), { deep: { down: () => {} } }]
    const refused = inputs.map((input) => failure(pool.run(echo, input)))
    const next = pool.run(describeThread, null)
    latch.release()
    for (const error of await Promise.all(refused)) expect(error.name).toBe('DataCloneError')
    expect((await next).threadId).toBe(threadId)
    expect([crashes.length, timings.length]).toEqual([0, 3])
  })

  test('an input that cannot even be read: it alone fails', async () => {
    const { pool, crashes } = await usePool({ threads: 1 })
    const { latch } = await occupy(pool)
    const unreadable = {
      get value(): never {
        throw new Error('not for reading')
      },
    }
    const refused = failure(pool.run(echo, unreadable))
    const next = pool.run(echo, 'next')
    latch.release()
    expect((await refused).message).toBe('not for reading')
    expect(await next).toBe('next')
    expect(crashes).toEqual([])
  })

  test.each([
    ['an output', giveFunction],
    ['an exception', throwFunction],
  ])('%s that cannot be sent: the thread lives on', async (_, task) => {
    const { pool, crashes } = await usePool({ threads: 1 })
    const { threadId } = await pool.run(describeThread, null)
    const error = await failure(pool.run<null, unknown>(task, null))
    expect(error).toBeInstanceOf(TaskError)
    expect(error.message).toMatch(/could not be cloned/)
    expect((await pool.run(describeThread, null)).threadId).toBe(threadId)
    expect(crashes).toEqual([])
  })

  test.each([
    ['process.exit()', exit, 7, /exited with code 7/],
    ['an uncaught error', throwLater, 'thrown later', /thrown later/],
    ['memory that runs out', exhaustMemory, null, /memory/],
  ] as [string, Task<unknown, never>, unknown, RegExp][])(
    '%s: the thread is replaced',
    async (_, task, input, message) => {
      const { pool, crashes, timings } = await usePool({ threads: 2, maxHeapMb: 32 })
      const neighbour = await occupy(pool)
      const error = await failure(pool.run(task, input))
      expect(error).toBeInstanceOf(TaskError)
      expect(error.message).toMatch(message)
      expect(crashes).toEqual([expect.stringMatching(message)])
      expect(timings).toMatchObject([{ task: task.name, outcome: 'crashed' }])

      neighbour.latch.release()
      await neighbour.occupied
      await expectFullSize(pool, 2)
    },
  )

  test.each([
    ['rejection', /left behind/],
    ['exception', /left behind/],
    ['exit', /exited with code 5/],
  ] as const)(
    'an %s that it left behind: the log names it, and the task that is cut off is not blamed',
    async (kind, message) => {
      const { pool, crashes, crashedTasks } = await usePool({ threads: 1 })
      const { cells } = new Latch()
      expect(await pool.run(leaveBehind, { kind, cells })).toBe('fine')
      const error = await failure(pool.run(neverEnd, cells))
      expect(error).toBeInstanceOf(TaskError)
      expect(error.message).toMatch(
        /^The task test.never-end failed: its thread ended, by what the task test.leave-behind had left/,
      )
      expect(error.message).toMatch(message)
      expect(error).not.toHaveProperty('item', expect.any(Number))
      expect([crashes, crashedTasks]).toEqual([
        [expect.stringMatching(message)],
        [leaveBehind.name],
      ])
      await expectFullSize(pool, 1)
    },
  )

  test('an error that it left behind is not blamed on an item of a map, either', async () => {
    const { pool, crashedTasks } = await usePool({ threads: 1 })
    const { cells } = new Latch()
    await pool.run(leaveBehind, { kind: 'rejection', cells })
    const error = await failure(pool.map(neverEnd, [cells]))
    expect(error.message).toContain('by what the task test.leave-behind had left running')
    expect(crashedTasks).toEqual([leaveBehind.name])
  })

  test('an output that can be awaited is awaited, whatever its class, by run and by map', async () => {
    const { pool } = await usePool()
    expect(await pool.run(giveThenable, 1)).toBe(1)
    expect(await pool.map(giveThenable, [1, 2, 3])).toEqual([1, 2, 3])
    expect(await failure(pool.run(giveThenable, 'fails'))).toMatchObject({
      name: 'TaskError',
      message: expect.stringContaining('It fails'),
    })
    expect(await failure(pool.map(giveThenable, [1, 'fails']))).toMatchObject({ item: 1 })
  })

  test('tasks that wait are served by the thread that replaces the lost one', async () => {
    const { pool } = await usePool({ threads: 1 })
    const lost = failure(pool.run(exit, 1))
    const waiting = [pool.run(echo, 'first'), pool.run(echo, 'second')]
    expect(await lost).toBeInstanceOf(TaskError)
    expect(await Promise.all(waiting)).toEqual(['first', 'second'])
  })
})

describe('cancelling', () => {
  test('a signal that is aborted already: the task does not even queue', async () => {
    const { pool } = await usePool()
    const counter = newCounter()
    const reason = new Error('too late')
    await expect(pool.run(count, counter, { signal: AbortSignal.abort(reason) })).rejects.toBe(
      reason,
    )
    expect(await pool.run(count, counter)).toBe(0)
  })

  test('a task that waits is dropped at once and never runs', async () => {
    const { pool } = await usePool({ threads: 1 })
    const { latch } = await occupy(pool)
    const counter = newCounter()
    const { abort, signal, reason } = cancellation()
    const dropped = pool.run(count, counter, { signal })
    const next = pool.run(count, counter)
    abort()
    await expect(dropped).rejects.toBe(reason)
    expect(pool.queued).toBe(1)
    latch.release()
    expect(await next).toBe(0)
  })

  test('a task that asks ends, and its thread serves the next', async () => {
    const { pool, crashes, timings } = await usePool({ threads: 1 })
    const { threadId } = await pool.run(describeThread, null)
    const { abort, signal, reason } = cancellation()
    const { occupied } = await occupy(pool, { signal, task: blockAsking })
    const next = pool.run(describeThread, null)
    stopTimers()
    abort()
    await expect(occupied).rejects.toBe(reason)
    expect((await next).threadId).toBe(threadId)
    expect(crashes).toEqual([])
    expect(timings[1]).toMatchObject({ task: blockAsking.name, outcome: 'cancelled' })
  })

  test.each([
    ['loops', spin],
    ['loops over arrays that V8 fills itself', spinOverArrays],
    ['waits', blockDeaf],
  ])('a task that %s without asking is terminated after its grace, alone', async (_, task) => {
    const { pool, crashes, timings } = await usePool({ threads: 2 })
    const neighbour = await occupy(pool)
    const { abort, signal, reason } = cancellation()
    const { occupied } = await occupy(pool, { signal, task })
    const abortedAt = performance.now()
    abort()
    await expect(occupied).rejects.toBe(reason)
    expect(pool.running).toBe(2)

    await until(() => pool.running === 1, 'the task is terminated')
    expect(performance.now() - abortedAt).toBeGreaterThan(95)
    expect(timings).toMatchObject([{ task: task.name, outcome: 'cancelled' }])
    expect(crashes).toEqual([])
    neighbour.latch.release()
    expect(await neighbour.occupied).toBeGreaterThan(0)
    await expectFullSize(pool, 2)
  })

  test('a task never learns that another one was cancelled', async () => {
    const { pool } = await usePool({ threads: 2 })
    const watching = await occupy(pool, { task: watchCancelled })
    const { abort, signal, reason } = cancellation()
    const { occupied } = await occupy(pool, { signal, task: endWhenCancelled })
    const next = new Latch()
    const onSameThread = pool.run(watchCancelled, next.cells)
    abort()
    await expect(occupied).rejects.toBe(reason)
    await next.untilStarted()
    for (const latch of [watching.latch, next]) latch.release()
    expect(await Promise.all([watching.occupied, onSameThread])).toEqual([false, false])
  })

  test('a task whose end the event loop hears of late takes no other down', async () => {
    const { pool, crashes } = await usePool({ threads: 1 })
    const { abort, signal, reason } = cancellation()
    const { occupied } = await occupy(pool, { signal, task: endWhenCancelled })
    const next = pool.run(echo, 'unharmed')
    // From here the timers come before the messages: the grace is over when the task's answer is
    // read.
    await new Promise(setImmediate)
    abort()
    blockEventLoop(150)
    await expect(occupied).rejects.toBe(reason)
    expect(await next).toBe('unharmed')
    expect(crashes).toEqual([])
    await expectFullSize(pool, 1)
  })

  test('after the end of a task nothing happens', async () => {
    const { pool } = await usePool({ threads: 1 })
    const { abort, signal } = cancellation()
    const { threadId } = await pool.run(describeThread, null, { signal, timeoutMs: 60_000 })
    abort()
    expect((await pool.run(describeThread, null)).threadId).toBe(threadId)
  })
})

describe('a deadline', () => {
  test('ends a task that runs', async () => {
    const { pool, timings } = await usePool({ threads: 1 })
    const late = pool.run(spin, new Latch().cells, { timeoutMs: 200 })
    await expect(late).rejects.toMatchObject({
      code: 'deadline_exceeded',
      message: expect.stringContaining('200 ms'),
    })
    expect(await pool.run(echo, 'next')).toBe('next')
    // A thread that had to be terminated may end after its successor's first task.
    const spun = await until(() => timings.find(({ task }) => task === spin.name), 'it has ended')
    expect(spun.outcome).toBe('deadline_exceeded')
  })

  test('ends a task that waits', async () => {
    const { pool, timings } = await usePool({ threads: 1 })
    const { occupied, latch } = await occupy(pool)
    const counter = newCounter()
    await expect(pool.run(count, counter, { timeoutMs: 20 })).rejects.toMatchObject({
      code: 'deadline_exceeded',
    })
    expect(pool.queued).toBe(0)
    latch.release()
    await occupied
    expect(await pool.run(count, counter)).toBe(0)
    expect(timings.map(({ task }) => task)).toEqual([blockDeaf.name, count.name])
  })

  test('leaves alone what ends in time', async () => {
    const { pool } = await usePool()
    expect(await pool.run(echo, 'in time', { timeoutMs: 60_000 })).toBe('in time')
  })
})

describe('stopping', () => {
  const refused = { code: 'unavailable', retryAfterMs: 1_000 }

  test('serves what waits, runs or maps, and refuses what is new', async () => {
    const stopping = new AbortController()
    const { pool } = await usePool({ threads: 2, stopping: stopping.signal, drainMs: 60_000 })
    const runs = Array.from({ length: 12 }, () => pool.run(computeFor, 20))
    const maps = Array.from({ length: 12 }, () =>
      pool.map(computePieces, [{ pieces: 10, ms: 2 }]).reduce(0),
    )
    stopping.abort()
    await expect(pool.run(echo, 'new')).rejects.toMatchObject(refused)
    await expect(pool.map(echo, ['new'])).rejects.toMatchObject(refused)
    await Promise.all(runs)
    expect(await Promise.all(maps)).toEqual(maps.map(() => 10))
  })

  test('ends what is left shortly before its time is over, so that it can still be answered', async () => {
    const stopping = new AbortController()
    const { pool } = await usePool({ threads: 1, stopping: stopping.signal, drainMs: 500 })
    const { occupied } = await occupy(pool, { task: spin })
    const waiting = [pool.run(echo, 'waits'), pool.map(echo, ['waits'])]
    const stoppedAt = performance.now()
    stopping.abort()
    for (const left of [occupied, ...waiting]) expect(await failure(left)).toMatchObject(refused)
    expect(performance.now() - stoppedAt).toBeGreaterThan(440)
  })

  test('disposing ends what runs, what waits and all threads', async () => {
    const workers = watchWorkers()
    const { pool, crashes } = await usePool({ threads: 2 })
    const running = [await occupy(pool), await occupy(pool, { task: spin })]
    const waiting = pool.run(echo, 'waits')
    const outcomes = Promise.allSettled([...running.map(({ occupied }) => occupied), waiting])
    await pool[Symbol.asyncDispose]()
    for (const outcome of await outcomes)
      expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'unavailable' } })
    await expect(pool.run(echo, 'new')).rejects.toMatchObject({ code: 'unavailable' })
    expect(workers.length).toBe(2)
    expect(workers.filter(isAlive)).toEqual([])
    expect(crashes).toEqual([])
  })

  test('disposing while a thread is being replaced leaves none', async () => {
    const workers = watchWorkers()
    const { pool } = await usePool({ threads: 1 })
    await failure(pool.run(exit, 1))
    await pool[Symbol.asyncDispose]()
    await until(() => !workers.some(isAlive), 'all threads end')
  })
})

describe('opening', () => {
  const loads = `workerData.port.postMessage([]); workerData.port.on('message', () => {})`

  test.each([
    ['throws', `throw new Error('broken on load')`, /broken on load/],
    ['cannot be read', `import './no-such-file.js'`, /./],
    ['ends without serving tasks', '', /before it was ready/],
  ])('rejects when the entry file %s, and leaves no thread', async (_, source, message) => {
    const workers = watchWorkers()
    await expect(Pool.open({ threads: 3, entry: entryOf(source) })).rejects.toThrow(message)
    expect(workers.length).toBe(3)
    await until(() => !workers.some(isAlive), 'all threads end')
  })

  test.each([
    ['ready', loads],
    ['still loading', `await new Promise((resolve) => setTimeout(resolve, 50)); ${loads}`],
  ])('rejects when one thread fails, and ends the one that is %s', async (_, source) => {
    const workers = watchWorkers()
    const oneFails = `if (threadId % 2) throw new Error('the odd one'); ${source}`
    await expect(Pool.open({ threads: 2, entry: entryOf(oneFails) })).rejects.toThrow('the odd one')
    expect(workers.length).toBe(2)
    await until(() => !workers.some(isAlive), 'all threads end')
  })

  const entryOf = (source: string) =>
    new URL(
      `data:text/javascript,import { threadId, workerData } from 'node:worker_threads';${source}`,
    )
})

describe('timings', () => {
  test('say how long a task waited and how long it occupied its thread', async () => {
    const { pool, timings } = await usePool({ threads: 1 })
    const startedAt = performance.now()
    await Promise.all([pool.run(computeFor, 40), pool.run(computeFor, 20)])
    const elapsedMs = performance.now() - startedAt
    expect(timings.map(({ task, outcome }) => [task, outcome])).toEqual(
      timings.map(() => [computeFor.name, 'succeeded']),
    )
    const [first, second] = timings as [Timing, Timing]
    expect(first.runMs).toBeGreaterThanOrEqual(40)
    expect(first.queuedMs).toBeLessThan(first.runMs)
    expect(second.queuedMs).toBeGreaterThanOrEqual(40)
    expect(second.runMs).toBeGreaterThanOrEqual(20)
    expect(second.queuedMs + second.runMs).toBeLessThanOrEqual(elapsedMs)
    expect(first.thread).toBe(second.thread)
  })

  test('come once for each task that ran, with its outcome', async () => {
    const { pool, timings } = await usePool({ threads: 1 })
    const cancel = cancellation()
    await pool.run(echo, 1)
    await failure(pool.run(fail, 'on purpose'))
    await failure(pool.run(blockAsking, new Latch().cells, { timeoutMs: 100 }))
    const { occupied } = await occupy(pool, { signal: cancel.signal, task: blockAsking })
    cancel.abort()
    await failure(occupied)
    await failure(pool.run(exit, 0))
    await pool.run(echo, 2)
    expect(timings.map(({ task, outcome }) => [task, outcome])).toEqual([
      [echo.name, 'succeeded'],
      [fail.name, 'failed'],
      [blockAsking.name, 'deadline_exceeded'],
      [blockAsking.name, 'cancelled'],
      [exit.name, 'crashed'],
      [echo.name, 'succeeded'],
    ])
  })
})

describe('under a storm', () => {
  test('of 200 tasks each settles in its own way, and all threads are there again', async () => {
    const { pool, timings } = await usePool({ threads: 4 })
    const cancelled = (task: Task<Cells, unknown>) => (index: number) => {
      const controller = new AbortController()
      setTimeout(() => controller.abort(new Error(`cancelled ${index}`)), Math.random() * 800)
      return [
        pool.run(task, new Latch().cells, { signal: controller.signal }),
        `Error: cancelled ${index}`,
      ] as const
    }
    const late = (task: Task<Cells, unknown>) => () => {
      // So short that it is never refused for its wait: docs/offloading.md
      const timeoutMs = Math.ceil(Math.random() * 90)
      const outcome = `DeadlineError: The task ${task.name} took longer than ${timeoutMs} ms`
      return [pool.run(task, new Latch().cells, { timeoutMs }), outcome] as const
    }
    const failing = <Input>(task: Task<Input, unknown>, input: Input, why: string) =>
      [pool.run(task, input), `TaskError: The task ${task.name} failed: ${why}`] as const
    const kinds = [
      cancelled(blockAsking),
      (index: number) => [pool.run(echo, index), `gives ${index}`] as const,
      late(blockAsking),
      cancelled(spin),
      (index: number) => [pool.run(computeFor, index % 10), 'gives undefined'] as const,
      (index: number) => failing(exit, index, `The thread exited with code ${index}`),
      cancelled(endWhenCancelled),
      late(spin),
      (index: number) => failing(fail, `failed ${index}`, `failed ${index}`),
      cancelled(blockDeaf),
      (index: number) => failing(throwLater, `thrown ${index}`, `thrown ${index}`),
      (index: number) => [pool.run(echo, index), `gives ${index}`] as const,
    ]
    const runs = Array.from(
      { length: 200 },
      (_, index) => kinds[index % kinds.length]?.(index) ?? failing(nowhere, null, ''),
    )

    const settled = await Promise.allSettled(runs.map(([promise]) => promise))
    const expected = runs.map(([, outcome]) => outcome)
    expect(settled.map(describeOutcome)).toEqual(expected)
    await until(() => pool.running + pool.queued === 0, 'all threads are free')
    const timed = (outcome: Outcome) =>
      timings.filter((timing) => timing.outcome === outcome).length
    const counted = (pattern: RegExp) => expected.filter((outcome) => pattern.test(outcome)).length
    expect([timed('succeeded'), timed('failed'), timed('crashed')]).toEqual([
      counted(/^gives/),
      counted(/: failed/),
      counted(/exited|thrown/),
    ])
    await expectFullSize(pool, 4)
  })
})

const describeOutcome = (result: PromiseSettledResult<unknown>) =>
  result.status === 'fulfilled'
    ? `gives ${result.value}`
    : `${result.reason.name}: ${result.reason.message}`

/**
 * The grace never ends: on a machine that is busy, it may be over before the thread gets a core.
 */
function stopTimers() {
  vi.useFakeTimers({ toFake: ['setTimeout'] })
  onTestFinished(() => void vi.useRealTimers())
}

function cyclic() {
  const self: { self?: unknown } = {}
  self.self = self
  return self
}
