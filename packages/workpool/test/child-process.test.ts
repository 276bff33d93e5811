import { type ForkOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { getPriority } from 'node:os'
import { createInterface } from 'node:readline'
import { beforeEach, describe, expect, onTestFailed, onTestFinished, test, vi } from 'vitest'
import { until } from '../../../test/support/until.ts'
import { TaskError } from '../errors.ts'
import type { Task } from '../task.ts'
import { cancellation, failure, usePool } from './support/pool.ts'
import {
  abort as abortProcess,
  computeFor,
  describeProcess,
  echo,
  endlessly,
  exhaustMemory,
  exit,
  exitAfterwards,
  fail,
  giveFunction,
  kill,
  progressFor,
} from './support/tasks.ts'

const isolated = { isolation: 'process' } as const

/**
 * What child processes print, which is much when they crash: kept for a test that fails, instead of
 * the runner's output.
 */
const printed = vi.hoisted((): string[] => [])
vi.mock('node:child_process', async (importOriginal) => {
  const original = await importOriginal<typeof import('node:child_process')>()
  const fork = (path: string, options: ForkOptions) => {
    const child = original.fork(path, { ...options, stdio: ['ignore', 'ignore', 'pipe', 'ipc'] })
    child.stderr?.on('data', (chunk) => printed.push(String(chunk)))
    return child
  }
  return { ...original, fork }
})

beforeEach(() => {
  printed.length = 0
  onTestFailed(() => console.error(printed.join('')))
})

describe('a task in a child process', () => {
  test('takes its input and gives its output as on a thread', async () => {
    const { pool, timings } = await usePool()
    const value = {
      map: new Map([['a', 1n]]),
      bytes: new Uint8Array([1, 2]),
      date: new Date(0),
      error: new TypeError('as a value'),
    }
    expect(await pool.run(echo, value, isolated)).toEqual(value)
    expect(await pool.run(echo, undefined, isolated)).toBeUndefined()
    expect(timings).toMatchObject([
      { outcome: 'succeeded', thread: expect.stringContaining('process') },
      { outcome: 'succeeded' },
    ])
  })

  test('waits for no batch work, however many threads that may use', async () => {
    const { pool } = await usePool({ threads: 2, batchThreads: 2 })
    await Promise.all([1, 2].map((input) => pool.run(echo, input, isolated)))
    const { signal, abort } = cancellation()
    const options = { ...isolated, priority: 'batch', signal, graceMs: 0 } as const
    const ended = Promise.allSettled([1, 2].map(() => pool.run(endlessly, null, options)))
    expect(await pool.run(echo, 'short', { ...isolated, timeoutMs: 5_000 })).toBe('short')
    abort()
    await ended
  })

  test('runs in another process, with nothing of the environment and little memory', async () => {
    const { pool } = await usePool({ maxHeapMb: 64 })
    const { pid, ppid, environment, heapLimitMb } = await pool.run(describeProcess, null, isolated)
    expect([pid === process.pid, ppid, environment]).toEqual([
      false,
      process.pid,
      ['NODE_COMPILE_CACHE'],
    ])
    expect(heapLimitMb).toBeLessThan(200)
  })

  test.runIf(process.platform === 'linux')('has the lowest priority', async () => {
    const { pool } = await usePool()
    const { pid } = await pool.run(describeProcess, null, isolated)
    expect(getPriority(pid)).toBe(19)
  })

  test('that fails says why', async () => {
    const { pool, crashes } = await usePool()
    const error = await failure(pool.run(fail, 'out of range', isolated))
    expect(error).toBeInstanceOf(TaskError)
    expect(error.cause).toMatchObject({ name: 'RangeError', message: 'out of range' })
    expect((await failure(pool.run(giveFunction, null, isolated))).message).toMatch(
      /could not be cloned/,
    )
    expect(crashes).toEqual([])
  })

  test('reports progress', async () => {
    const { pool } = await usePool()
    const reported: number[] = []
    await pool.run(progressFor, 300, {
      ...isolated,
      onProgress: (fraction) => reported.push(fraction),
    })
    expect(reported.length).toBeGreaterThan(0)
  })

  test('cannot be given shared memory, or buffers by moving them', async () => {
    const { pool } = await usePool()
    const bytes = new Uint8Array(8)
    const errors = [
      await failure(pool.run(echo, pool.share(Float64Array, 1), isolated)),
      await failure(pool.run(echo, { deep: [new Set([pool.share(Int8Array, 1)])] }, isolated)),
      await failure(pool.run(echo, () => {}, isolated)),
      await failure(pool.run(echo, bytes, { ...isolated, transfer: [bytes.buffer] })),
    ]
    expect(errors.map(({ name }) => name)).toEqual(Array(4).fill('DataCloneError'))
    expect(errors[0]?.message).toMatch(/SharedArrayBuffer/)
    expect(bytes.byteLength).toBe(8)
    expect(await pool.run(echo, 'next', isolated)).toBe('next')
  })
})

describe('what ends the process fails that task alone', () => {
  test.each([
    ['a segmentation fault', kill, 'SIGSEGV', /killed by SIGSEGV/],
    ['the kernel', kill, 'SIGKILL', /killed by SIGKILL/],
    ['abort()', abortProcess, null, /killed by SIGABRT/],
    ['process.exit()', exit, 7, /exited with code 7/],
    ['memory that runs out', exhaustMemory, null, /killed by SIGABRT/],
  ] as [string, Task<unknown, never>, unknown, RegExp][])('%s', async (_, task, input, message) => {
    const { pool, crashes, timings } = await usePool({ threads: 2, maxHeapMb: 64 })
    const neighbour = pool.run(computeFor, 300, isolated)
    const error = await failure(pool.run(task, input, isolated))
    expect(error).toBeInstanceOf(TaskError)
    expect(error.message).toMatch(message)
    expect(crashes).toEqual([expect.stringMatching(message)])
    expect(timings.find((timing) => timing.task === task.name)).toMatchObject({
      outcome: 'crashed',
    })
    await neighbour
    expect(await pool.run(echo, 'next', isolated)).toBe('next')
    if (task === exhaustMemory)
      await until(() => printed.join('').includes('heap out of memory'), 'V8 says so in the log')
  })

  test('an endless loop, once it is cancelled', async () => {
    const { pool, crashes } = await usePool()
    const { pid } = await pool.run(describeProcess, null, isolated)
    const { signal, abort, reason } = cancellation()
    const cancelled = failure(pool.run(endlessly, null, { ...isolated, signal }))
    await until(() => pool.running === 1, 'it runs')
    abort()
    expect(await cancelled).toBe(reason)
    await until(() => !isAlive(pid), 'the process is gone')
    expect(crashes).toEqual([])
    expect((await pool.run(describeProcess, null, isolated)).pid).not.toBe(pid)
  })

  test('also while nothing runs in it: the next task is at most a failure of its own', async () => {
    const { pool } = await usePool({ threads: 1 })
    const { pid } = await pool.run(describeProcess, null, isolated)
    process.kill(pid, 'SIGKILL')
    // The event loop does not know yet.
    while (isAlive(pid));
    const atOnce = await Promise.allSettled([pool.run(echo, 'next', isolated)])
    expect(atOnce).toMatchObject([
      { reason: { name: 'TaskError', message: expect.stringContaining('SIGKILL') } },
    ])
    await pool.run(exitAfterwards, null, isolated)
    await Promise.allSettled([pool.run(echo, 'next', isolated)])
    expect(await pool.run(echo, 'after that', isolated)).toBe('after that')
  })
})

describe('a child process', () => {
  test('is there when it is needed, and ends when it is idle', async () => {
    const { pool } = await usePool({ idleMs: 20 })
    const { pid } = await pool.run(describeProcess, null, isolated)
    await until(() => !isAlive(pid), 'it ends')
    expect((await pool.run(describeProcess, null, isolated)).pid).not.toBe(pid)
  })

  test('is gone after disposing, whatever it does', async () => {
    const { pool } = await usePool({ threads: 2 })
    const { pid } = await pool.run(describeProcess, null, isolated)
    const ended = failure(pool.run(endlessly, null, isolated))
    await pool[Symbol.asyncDispose]()
    expect(await ended).toMatchObject({ code: 'unavailable' })
    expect(isAlive(pid)).toBe(false)
  })

  test.each(['idle', 'busy'])('that is %s is gone when the service is killed', async (what) => {
    const service = spawn(process.execPath, [
      new URL('./support/isolating-service.ts', import.meta.url).pathname,
      what,
    ])
    onTestFinished(() => void service.kill('SIGKILL'))
    const [line] = await once(createInterface(service.stdout), 'line')
    const pid = Number(line)
    expect(isAlive(pid)).toBe(true)
    service.kill('SIGKILL')
    await until(() => !isAlive(pid), 'it ends')
  })
})

/** A process that has ended and was not waited for yet is not alive. */
function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return process.platform !== 'linux' || !/\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return false
  }
}
