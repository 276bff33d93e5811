import { describe, expect, test } from 'vitest'
import { until } from '../../../test/support/until.ts'
import { hasValkey } from '../../../test/support/valkey.ts'
import { DeadlineError, TaskError } from '../../workpool/errors.ts'
import { cancellation, failure, occupy } from '../../workpool/test/support/pool.ts'
import { double, echo, fail, giveFunction, moveBack } from '../../workpool/test/support/tasks.ts'
import { useCluster } from './support/cluster.ts'
import { giveBytes, giveShared, measure, progressFor, spinDeaf } from './support/tasks.ts'

const DISTRIBUTED = { distributed: true } as const
const MIB = 2 ** 20

/** Lines of the stack up to those of the worker, which got its call in one way or another. */
const toTaskFrames = ({ cause }: Error) => {
  const lines = (cause as Error).stack?.split('\n') ?? []
  return lines.slice(
    0,
    lines.findIndex((line) => line.includes('worker-main.ts')),
  )
}

/** A cluster whose thread here is busy. */
async function useBusyCluster() {
  const cluster = await useCluster()
  const { latch } = await occupy(cluster.pool)
  return { ...cluster, latch }
}

describe.runIf(hasValkey)('a distributed run', () => {
  test('goes to another process while the threads here are busy', async () => {
    const { pool, outcomes, servers } = await useBusyCluster()
    const value = { when: new Date(5), bytes: new Float64Array([1, 2]), big: 3n }
    expect(await pool.run(echo, value, { ...DISTRIBUTED, requestId: 'request-2' })).toEqual(value)
    expect(outcomes).toEqual(['done'])
    await until(() => servers[0]?.timings().length, 'it says so')
    expect(servers[0]?.timings()).toMatchObject([{ task: 'test.echo', requestId: 'request-2' }])
  })

  test('stays here while a thread is idle', async () => {
    const { pool, outcomes } = await useCluster()
    expect(await pool.run(echo, 'here', DISTRIBUTED)).toBe('here')
    expect(outcomes).toEqual([])
  })

  test('stays here if it is known to be short', async () => {
    const { pool, outcomes } = await useCluster()
    await pool.run(double, 1)
    const { latch } = await occupy(pool)
    const doubled = pool.run(double, 2, DISTRIBUTED)
    latch.release()
    expect(await doubled).toBe(4)
    expect(outcomes).toEqual([])
  })

  test('without other processes waits for a thread here', async () => {
    const { pool } = await useCluster({ servers: 0 })
    const { latch } = await occupy(pool)
    const echoed = pool.run(echo, 'later', DISTRIBUTED)
    latch.release()
    expect(await echoed).toBe('later')
  })

  test('reports progress from there', async () => {
    const { pool } = await useBusyCluster()
    const fractions: number[] = []
    const onProgress = (fraction: number) => fractions.push(fraction)
    expect(await pool.run(progressFor, 1_000, { ...DISTRIBUTED, onProgress })).toBe('done')
    expect(fractions.length).toBeGreaterThan(2)
    expect(fractions).toEqual(fractions.toSorted((a, b) => a - b))
  })

  test('fails as it does here', async () => {
    const { pool, latch } = await useBusyCluster()
    const there = await failure(pool.run(fail, 'too bad', DISTRIBUTED))
    latch.release()
    const here = await failure(pool.run(fail, 'too bad'))
    expect(there).toBeInstanceOf(TaskError)
    expect([there.message, there.cause]).toEqual([here.message, here.cause])
    expect(toTaskFrames(there)).toEqual(toTaskFrames(here))
    expect(toTaskFrames(here).length).toBeGreaterThan(1)
  })

  test('ends there when it is cancelled, or late', async () => {
    const { pool, servers, outcomes } = await useBusyCluster()
    const { signal, reason, abort } = cancellation()
    const cancelled = failure(pool.run(spinDeaf, null, { ...DISTRIBUTED, signal }))
    await until(() => servers[0]?.timeOf('busy'), 'it has begun')
    abort()
    expect(await cancelled).toBe(reason)
    await until(() => servers[0]?.timeOf('idle'), 'it has ended')
    const late = await failure(pool.run(spinDeaf, null, { ...DISTRIBUTED, timeoutMs: 300 }))
    expect(late).toBeInstanceOf(DeadlineError)
    expect(outcomes).toEqual(['cancelled', 'cancelled'])
  })

  test('waits here after the process that ran it was killed', async () => {
    const { pool, servers, latch, outcomes } = await useBusyCluster()
    const run = pool.run(progressFor, 3_000, DISTRIBUTED)
    await until(() => servers[0]?.timeOf('busy'), 'it has begun')
    servers[0]?.kill()
    await until(() => outcomes.includes('lost'), 'it is given back')
    latch.release()
    expect(await run).toBe('done')
  })

  test('cannot move buffers, with or without other processes', async () => {
    const { pool } = await useCluster({ servers: 0 })
    const bytes = new Uint8Array(8)
    const error = await failure(
      pool.run(moveBack, bytes, { ...DISTRIBUTED, transfer: [bytes.buffer] }),
    )
    expect(error).toMatchObject({ name: 'DataCloneError' })
    expect(error.message).toContain('leave out `transfer` or `distributed`')
    expect(bytes).toHaveLength(8)
  })

  test('cannot send shared memory, or what cannot be cloned', async () => {
    const { pool, client } = await useBusyCluster()
    for (const input of [new Int32Array(new SharedArrayBuffer(4)), () => {}]) {
      const error = await failure(pool.run(echo, { input }, DISTRIBUTED))
      expect(error).toMatchObject({ name: 'DataCloneError' })
      expect(error.message).toContain('Run test.echo without `distributed`')
    }
    const shared = await failure(pool.run(giveShared, null, DISTRIBUTED))
    expect(shared.message).toContain('Shared memory could not be cloned')
    expect(shared.cause).toMatchObject({ name: 'DataCloneError' })
    const { message, cause } = await failure(pool.run(giveFunction, null, DISTRIBUTED))
    expect([message, cause]).toMatchObject([
      expect.stringContaining('could not be cloned'),
      { name: 'DataCloneError', constructor: DOMException },
    ])
    expect(client.running).toBe(0)
  })

  test('is refused with more than 4 MiB of input or output', async () => {
    const { pool } = await useBusyCluster()
    const input = { bytes: new Uint8Array(5 * MIB), ms: 0 }
    const [large, result] = await Promise.all([
      failure(pool.run(measure, input, DISTRIBUTED)),
      failure(pool.run(giveBytes, { bytes: 5 * MIB, ms: 0 }, DISTRIBUTED)),
    ])
    expect(large).toBeInstanceOf(RangeError)
    expect(large.message).toMatch(
      /^Expected at most 4194304 bytes of input .* remote.measure, got 5242\d+: put large data/,
    )
    expect(result).toBeInstanceOf(TaskError)
    expect(result.message).toMatch(/of output .* remote.give-bytes, got 52\d+: put large data into/)
    const fits = await pool.run(giveBytes, { bytes: 3 * MIB, ms: 0 }, DISTRIBUTED)
    expect(fits).toHaveLength(3 * MIB)
  })
})

describe.runIf(hasValkey)('chunks of more than 4 MiB', () => {
  test.each([
    ['inputs', measure, (bytes: number) => new Uint8Array(bytes)],
    ['outputs', giveBytes, (bytes: number) => bytes],
  ] as const)('are divided: large %s', async (_, task, toBytes) => {
    const { pool, outcomes } = await useCluster()
    // Some 12 would be worth a chunk, on a busy machine fewer: two do not fit.
    const items = Array.from({ length: 60 }, () => ({ bytes: toBytes(2.1 * MIB), ms: 20 }))
    const outputs = await pool.map(task as never, items as never[], DISTRIBUTED)
    expect(outputs).toHaveLength(items.length)
    expect(outcomes).toContain('too-large')
    expect(outcomes.filter((outcome) => outcome === 'done').length).toBeGreaterThan(0)
    expect(outcomes.filter((outcome) => outcome === 'too-large').length).toBeLessThan(6)
  })

  test('fail with an item that is too large by itself', async () => {
    const { pool } = await useCluster()
    const items = [30_000, 300, 300].map((ms) => ({ bytes: new Uint8Array(5 * MIB), ms }))
    const error = await failure(pool.map(measure, items, DISTRIBUTED))
    expect(error).toBeInstanceOf(RangeError)
    expect(error.message).toContain('put large data into storage that all processes share')
  })
})
