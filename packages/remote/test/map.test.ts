import type { MapOptions } from '@offloop/workpool/map'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { until } from '../../../test/support/until.ts'
import { hasValkey } from '../../../test/support/valkey.ts'
import { DeadlineError, TaskError } from '../../workpool/errors.ts'
import { cancellation, failure } from '../../workpool/test/support/pool.ts'
import {
  computeFor,
  computePieces,
  double,
  give,
  giveLater,
  list,
  writeAfter,
} from '../../workpool/test/support/tasks.ts'
import { useCluster } from './support/cluster.ts'
import { echoAfter, spinAsking, spinDeaf } from './support/tasks.ts'

const DISTRIBUTED = { distributed: true } satisfies MapOptions
const MAX_CANCEL_MS = 1_000
const numbers = (length: number) => Array.from({ length }, (_, index) => index)
/** Between 0 and 40 ms each, in no order: three seconds. */
const UNEVEN = numbers(150).map((index) => (index * 37) % 41)

describe.runIf(hasValkey)('a distributed map', () => {
  test('gives its results in order, and all processes take part', async () => {
    const { pool, timings, servers, outcomes, client } = await useCluster({ servers: 2 })
    expect(await pool.map(give, UNEVEN, DISTRIBUTED)).toEqual(UNEVEN)
    expect(timings.length).toBeGreaterThan(0)
    await until(() => servers.every((server) => server.timings().length > 0), 'both took part')
    expect(new Set(outcomes)).toEqual(new Set(['done']))
    expect(client.running).toBe(0)
  })

  test.each([
    [
      'an iterable',
      (items: number[]) => new Set(items.keys()).values().map((at) => items[at] ?? 0),
    ],
    ['an async iterable', asyncOf],
  ])('takes %s, too, read at once or as a stream', async (_, itemsOf) => {
    const { pool, outcomes } = await useCluster()
    const items = UNEVEN.slice(0, 80)
    expect(await pool.map(give, itemsOf(items), DISTRIBUTED)).toEqual(items)
    expect(await Array.fromAsync(pool.map(give, itemsOf(items), DISTRIBUTED))).toEqual(items)
    expect(outcomes.length).toBeGreaterThan(1)
  })

  test('of asynchronous tasks gives their results in order, too', async () => {
    const { pool, outcomes } = await useCluster()
    expect(await pool.map(giveLater, UNEVEN, DISTRIBUTED)).toEqual(UNEVEN)
    expect(outcomes).not.toEqual([])
  })

  test('reduces in order, whatever was joined where', async () => {
    const { pool, outcomes } = await useCluster()
    const items = UNEVEN.map((ms, number) => ({ number, ms }))
    const written = items.map(({ number }) => `${number} `).join('')
    expect(await pool.map(writeAfter, items, DISTRIBUTED).reduce('')).toBe(written)
    expect(outcomes).not.toEqual([])
  })

  test('splits a single item for all threads', async () => {
    const { pool, outcomes } = await useCluster()
    const item = { pieces: 300, ms: 8 }
    expect(await pool.map(computePieces, [item], DISTRIBUTED)).toEqual([300])
    expect(await pool.map(computePieces, [item], DISTRIBUTED).reduce(0)).toBe(300)
    expect(outcomes).not.toEqual([])
    expect(
      await pool.map(
        list,
        [
          { from: 0, to: 50 },
          { from: 7, to: 9 },
        ],
        DISTRIBUTED,
      ),
    ).toEqual([numbers(50), [7, 8]])
  })

  test('reads an endless source no further than a bound, until its reader leaves', async () => {
    const { pool, outcomes, client } = await useCluster()
    let taken = 0
    let closed = false
    const source = function* () {
      try {
        for (;;) yield taken++ % 20
      } finally {
        closed = true
      }
    }
    const read: number[] = []
    for await (const output of pool.map(give, source(), DISTRIBUTED)) {
      read.push(output)
      if (outcomes.length > 2 && read.length > 200) break
    }
    expect(read).toEqual(read.map((_, index) => index % 20))
    expect(closed).toBe(true)
    expect(taken - read.length).toBeLessThan(1_000)
    await until(() => client.running === 0, 'calls are cancelled')
  })

  test('sends items of unknown length after a quarter of a second', async () => {
    const { pool, timings, starts } = await useCluster({ servers: 2 })
    const { signal, reason, abort } = cancellation()
    const items = [30_000, 30_000, 30_000]
    const map = failure(pool.map(computeFor, items, { ...DISTRIBUTED, signal }))
    await until(() => starts.length === 2, 'both other items have begun')
    expect(timings).toEqual([])
    abort()
    expect(await map).toBe(reason)
  })

  test('keeps what is not worth sending', async () => {
    const { pool, outcomes } = await useCluster()
    expect(await pool.map(give, numbers(10), DISTRIBUTED)).toEqual(numbers(10))
    expect(await pool.map(double, numbers(50_000), DISTRIBUTED)).toHaveLength(50_000)
    expect(outcomes).toEqual([])
  })

  test('has at most two calls for each thread that serves', async () => {
    const { pool, client } = await useCluster({ servers: 1, serverThreads: 2 })
    let most = 0
    const onProgress = () => {
      most = Math.max(most, client.running)
    }
    await Promise.all(
      [1, 2].map(() => pool.map(give, UNEVEN, { ...DISTRIBUTED, onProgress, priority: 'batch' })),
    )
    expect(most).toBeGreaterThan(1)
    expect(most).toBeLessThanOrEqual(4)
  })

  test('uses no more threads than it may', async () => {
    const { pool, client, outcomes } = await useCluster({ serverThreads: 2 })
    let most = 0
    const onProgress = () => {
      most = Math.max(most, client.running)
    }
    expect(await pool.map(give, UNEVEN, { ...DISTRIBUTED, concurrency: 2, onProgress })).toEqual(
      UNEVEN,
    )
    expect(most).toBe(1)
    const sent = outcomes.length
    expect(await pool.map(give, UNEVEN, { ...DISTRIBUTED, concurrency: 1 })).toEqual(UNEVEN)
    expect(outcomes.length).toBe(sent)
  })

  test('reports progress up to the end', async () => {
    const { pool, outcomes } = await useCluster()
    const reports: number[] = []
    await pool.map(give, UNEVEN, { ...DISTRIBUTED, onProgress: ({ done }) => reports.push(done) })
    expect(reports).toEqual(reports.toSorted((a, b) => a - b))
    expect(reports.at(-1)).toBe(UNEVEN.length)
    expect(outcomes).not.toEqual([])
  })

  test('names the request where it runs', async () => {
    const { pool, servers } = await useCluster()
    await pool.map(give, UNEVEN, { ...DISTRIBUTED, requestId: 'request-1', trace: 'trace-1' })
    const [timing] = await until(() => {
      const all = servers[0]?.timings() ?? []
      return all.length > 0 ? all : undefined
    }, 'the other process says so')
    expect(timing).toMatchObject({
      task: 'test.give',
      requestId: 'request-1',
      trace: 'trace-1',
      outcome: 'succeeded',
    })
  })

  test('gives what the same map gives in one process, whatever the values', async () => {
    const { pool, outcomes } = await useCluster()
    const value = fc.anything({
      withBigInt: true,
      withDate: true,
      withMap: true,
      withSet: true,
      withTypedArray: true,
      withSparseArray: true,
    })
    await fc.assert(
      fc.asyncProperty(fc.array(value, { minLength: 3, maxLength: 5 }), async (values) => {
        const items = values.map((each) => ({ value: each, ms: 250 }))
        const local = structuredClone(values)
        expect(await pool.map(echoAfter, items, DISTRIBUTED)).toEqual(local)
      }),
      { numRuns: 5 },
    )
    expect(outcomes).toContain('done')
  })
})

describe.runIf(hasValkey)('the first error of a distributed map', () => {
  test('names the item, and has the cause of the process where it happened', async () => {
    const { pool, timings, servers } = await useCluster()
    const items = UNEVEN.map((ms, number) => ({ number, ms: number === 140 ? -1 : ms }))
    const error = await failure(pool.map(writeAfter, items, DISTRIBUTED))
    expect(error).toBeInstanceOf(TaskError)
    expect(error).toMatchObject({
      message: 'The task test.write-after failed on item 140: There is no such time',
      task: 'test.write-after',
      item: 140,
      cause: expect.any(RangeError),
    })
    expect((error.cause as Error).stack).toContain('worker.ts')
    await until(() => {
      const all = [...timings, ...(servers[0]?.timings() ?? [])]
      return all.some(({ outcome }) => outcome === 'failed')
    }, 'one of them says so')
  })

  test('comes from another process with the index of the item there', async () => {
    const { pool, timings } = await useCluster()
    // The thread here is at work on the first one until the end.
    const items = [30_000, 400, -1].map((ms, number) => ({ number, ms }))
    const error = await failure(pool.map(writeAfter, items, DISTRIBUTED))
    expect(error).toMatchObject({ item: 2, cause: expect.any(RangeError) })
    expect(timings.filter(({ outcome }) => outcome === 'failed')).toEqual([])
  })
})

describe.runIf(hasValkey)('cancelling a distributed map', () => {
  test.each([
    ['asks', spinAsking],
    ['never asks', spinDeaf],
  ])('ends a task that %s within a second, in all processes', async (_, task) => {
    const {
      pool,
      servers: [server],
      outcomes,
    } = await useCluster()
    const { signal, reason, abort } = cancellation()
    const map = failure(pool.map(task, [null, null, null, null], { ...DISTRIBUTED, signal }))
    await until(() => server?.timeOf('busy'), 'it runs in the other process')
    const abortedAt = Date.now()
    abort()
    expect(await map).toBe(reason)
    const idleAt = await until(() => server?.timeOf('idle'), 'it ends there')
    expect(idleAt - abortedAt).toBeLessThan(MAX_CANCEL_MS)
    expect(outcomes).toEqual(['cancelled', 'cancelled'])
  })

  test('happens at its deadline, too', async () => {
    const {
      pool,
      servers: [server],
    } = await useCluster()
    const startedAt = Date.now()
    const options = { ...DISTRIBUTED, timeoutMs: 4_000 }
    const error = await failure(pool.map(spinDeaf, [null, null], options))
    expect(error).toBeInstanceOf(DeadlineError)
    const idleAt = await until(() => server?.timeOf('idle'), 'it ends there')
    expect(idleAt - startedAt).toBeLessThan(options.timeoutMs + MAX_CANCEL_MS)
  })
})

async function* asyncOf<Item>(items: Item[]) {
  yield* items
}
