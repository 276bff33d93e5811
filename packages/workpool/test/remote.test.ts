import { describe, expect, onTestFinished, test } from 'vitest'
import { until } from '../../../test/support/until.ts'
import { PoolClosedError, TaskError } from '../errors.ts'
import type { Remote, RemoteAnswer, RemoteWork } from '../remote.ts'
import { failure, occupy, usePool } from './support/pool.ts'
import { echo, fail, give, Latch, writeAfter } from './support/tasks.ts'

const DISTRIBUTED = { distributed: true } as const
/** Of 10 ms each: a second and a half. */
const ITEMS = new Array<number>(150).fill(10)

type Run = (work: RemoteWork, signal: AbortSignal) => Promise<RemoteAnswer>

/** A pool whose other process answers as `run` does; all that it is sent is kept. */
async function useRemote(run: Run, options: Parameters<typeof usePool>[0] = {}) {
  const sent: RemoteWork[] = []
  const signals: AbortSignal[] = []
  let running = 0
  const remote: Remote = {
    places: () => 2 - running,
    async run(work, { signal }) {
      running++
      sent.push(work)
      signals.push(signal)
      try {
        return await run(work, signal)
      } finally {
        running--
      }
    },
  }
  return { ...(await usePool({ threads: 1, remote, ...options })), sent, signals }
}

/** Answers once it is aborted. */
const untilAborted: Run = (_, signal) =>
  new Promise((resolve) => {
    signal.addEventListener('abort', () => resolve({ outcome: 'lost' }))
  })

const countSent = (sent: RemoteWork[]) =>
  sent.map(({ input }) => (Array.isArray(input) ? input.length : 1))

describe('a distributed map', () => {
  test('has the results of another pool in their places', async () => {
    const { pool: other } = await usePool({ threads: 1 })
    const { pool, sent } = await useRemote((work, signal) => other.serve(work, { signal }))
    const items = ITEMS.map((ms, number) => ({ number, ms }))
    const written = items.map(({ number }) => `${number} `)
    expect(await pool.map(writeAfter, items, DISTRIBUTED)).toEqual(written)
    expect(await pool.map(writeAfter, items, DISTRIBUTED).reduce('')).toBe(written.join(''))
    expect(new Set(sent.map(({ mode }) => mode))).toEqual(new Set(['each', 'joined']))
  })

  test('sends nothing unless it is asked to', async () => {
    const { pool, sent } = await useRemote(untilAborted)
    expect(await pool.map(give, ITEMS)).toEqual(ITEMS)
    expect(sent).toEqual([])
  })

  test('does here what is lost there', async () => {
    const { pool, sent } = await useRemote(async () => ({ outcome: 'lost' }))
    expect(await pool.map(give, ITEMS, DISTRIBUTED)).toEqual(ITEMS)
    expect(sent).not.toEqual([])
  })

  test('does here what is left of a chunk that took too long there', async () => {
    const { pool, sent } = await useRemote(async ({ input }) => {
      const [first] = input as number[]
      return { outcome: 'done', output: [first], items: 1, runMs: 10 }
    })
    expect(await pool.map(give, ITEMS, DISTRIBUTED)).toEqual(ITEMS)
    expect(sent).not.toEqual([])
  })

  test('sends smaller chunks after one that was too large', async () => {
    const answer: Run = async ({ input }) => {
      const inputs = input as number[]
      return inputs.length > 1
        ? { outcome: 'too-large', fits: 1 }
        : { outcome: 'done', output: inputs, items: inputs.length, runMs: 30 }
    }
    const { pool, sent } = await useRemote(answer)
    expect(await pool.map(give, ITEMS, DISTRIBUTED)).toEqual(ITEMS)
    const counts = countSent(sent)
    expect(counts[0]).toBeGreaterThan(1)
    expect(Math.max(...counts.slice(2))).toBe(1)
  })

  test('fails with the error of the other process, and ends the rest', async () => {
    const error = new RangeError('Not there')
    const { pool, sent } = await useRemote(async () => ({ outcome: 'failed', error, item: 1 }))
    const thrown = await failure(pool.map(give, ITEMS, DISTRIBUTED))
    const [first] = countSent(sent)
    expect(thrown).toBeInstanceOf(TaskError)
    expect(thrown).toMatchObject({ task: 'test.give', cause: error, item: expect.any(Number) })
    expect((thrown as TaskError).item).toBeGreaterThan(first ? 1 : 0)
  })

  test('fails with what cannot be sent', async () => {
    const refused = new RangeError('Too large')
    const { pool } = await useRemote(() => Promise.reject(refused))
    expect(await failure(pool.map(give, ITEMS, DISTRIBUTED))).toBe(refused)
  })

  test('ends there when its reader leaves', async () => {
    const { pool, sent, signals } = await useRemote(untilAborted)
    for await (const _ of pool.map(give, ITEMS, DISTRIBUTED)) if (sent.length > 0) break
    await until(() => signals.every(({ aborted }) => aborted), 'all are aborted')
  })

  test('counts its items there as running', async () => {
    const { pool, sent } = await useRemote(untilAborted)
    const controller = new AbortController()
    const map = failure(pool.map(give, ITEMS, { ...DISTRIBUTED, signal: controller.signal }))
    await until(() => sent.length === 2, 'two are sent')
    expect(pool.countItems().get('test.give')?.running).toBeGreaterThanOrEqual(2)
    controller.abort()
    await map
  })
})

describe('a distributed run', () => {
  test.each([
    ['is lost', async (): Promise<RemoteAnswer> => ({ outcome: 'lost' })],
    ['is late', untilAborted],
  ])('that %s there ends here as any other', async (what, run) => {
    const { pool, sent } = await useRemote(run)
    const { latch } = await occupy(pool)
    const timeoutMs = what === 'is late' ? 200 : undefined
    const result = pool.run(echo, 1, { ...DISTRIBUTED, timeoutMs })
    result.catch(() => {})
    await until(() => sent.length === 1, 'it is sent')
    if (timeoutMs) expect(await failure(result)).toMatchObject({ code: 'deadline_exceeded' })
    latch.release()
    if (!timeoutMs) expect(await result).toBe(1)
  })

  test('ends with its pool', async () => {
    const { pool, sent, signals } = await useRemote(untilAborted)
    await occupy(pool)
    const run = failure(pool.run(echo, 1, DISTRIBUTED))
    await until(() => sent.length === 1, 'it is sent')
    await pool[Symbol.asyncDispose]()
    expect(await run).toBeInstanceOf(PoolClosedError)
    expect(signals[0]?.aborted).toBe(true)
  })

  test('has until the drain is over', async () => {
    const stopping = new AbortController()
    const { pool, sent } = await useRemote(untilAborted, {
      stopping: stopping.signal,
      drainMs: 200,
    })
    const { latch } = await occupy(pool)
    onTestFinished(() => latch.release())
    const run = failure(pool.run(echo, 1, DISTRIBUTED))
    await until(() => sent.length === 1, 'it is sent')
    stopping.abort()
    expect(await run).toBeInstanceOf(PoolClosedError)
  })
})

describe('serving another process', () => {
  const signal = new AbortController().signal
  const toWork = (task: string, mode: RemoteWork['mode'], input: unknown): RemoteWork => ({
    task,
    mode,
    input,
    requestId: 'request-1',
    trace: undefined,
  })

  test('runs on all threads that batch work may use, and names the request', async () => {
    const { pool, timings } = await usePool({ threads: 2, batchThreads: 2 })
    const latches = [new Latch(), new Latch()]
    const calls = latches.map(({ cells }) =>
      pool.serve(toWork('test.block-deaf', 'one', cells), { signal }),
    )
    await until(() => latches.every(({ started }) => started), 'both run')
    for (const latch of latches) latch.release()
    for (const call of calls) expect(await call).toMatchObject({ outcome: 'done', items: 1 })
    expect(timings.map(({ requestId }) => requestId)).toEqual(['request-1', 'request-1'])
  })

  test('gives a chunk back that takes long', async () => {
    const { pool } = await usePool({ threads: 1 })
    const inputs = new Array(100).fill(50)
    const answer = await pool.serve(toWork('test.give', 'each', inputs), { signal })
    if (answer.outcome !== 'done') throw new Error(`It is ${answer.outcome}`)
    expect(answer.items).toBeLessThan(100)
    expect(answer.output).toEqual(inputs.slice(0, answer.items))
  })

  test.each(['one', 'each'] as const)(
    'gives back what no thread begins in time (%s)',
    async (mode) => {
      const { pool } = await usePool({ threads: 1 })
      const { latch } = await occupy(pool, { priority: 'batch' })
      const answer = await pool.serve(toWork('test.give', mode, [1]), { signal })
      latch.release()
      expect(answer).toEqual({ outcome: 'lost' })
    },
  )

  test('says what failed, and gives back what a pool refuses that stops', async () => {
    const stopping = new AbortController()
    const { pool } = await usePool({ threads: 1, stopping: stopping.signal })
    const failed = await pool.serve(toWork(fail.name, 'each', ['bad']), { signal })
    expect(failed).toMatchObject({ outcome: 'failed', item: 0, error: { message: 'bad' } })
    stopping.abort()
    const lost = await pool.serve(toWork(echo.name, 'one', 1), { signal })
    expect(lost).toEqual({ outcome: 'lost' })
  })

  test('lists the tasks that it has', async () => {
    const { pool } = await usePool({ threads: 1 })
    const tasks = await pool.listTasks()
    expect(tasks).toContain('test.give')
    expect(tasks).not.toContain('test.nowhere')
  })
})
