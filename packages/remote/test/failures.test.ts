import { describe, expect, test } from 'vitest'
import { useProxy } from '../../../test/support/proxy.ts'
import { until } from '../../../test/support/until.ts'
import { hasValkey } from '../../../test/support/valkey.ts'
import { TaskError } from '../../workpool/errors.ts'
import { failure, occupy } from '../../workpool/test/support/pool.ts'
import { give } from '../../workpool/test/support/tasks.ts'
import { useCluster } from './support/cluster.ts'
import { killOthers } from './support/tasks.ts'

const DISTRIBUTED = { distributed: true } as const
const numbers = (length: number) => Array.from({ length }, (_, index) => index)
/** Of 40 ms each: six seconds. */
const ITEMS = new Array<number>(150).fill(40)
/** What BullMQ keeps for the queue itself. */
const QUEUE_KEYS = /^offloop:remote:(meta|events|id|marker|stalled-check|stalled)$/

describe.runIf(hasValkey)('a distributed map', () => {
  test('runs in this process while no other serves', async () => {
    const { pool, outcomes, timings } = await useCluster({ servers: 0 })
    expect(await pool.map(give, numbers(50), DISTRIBUTED)).toEqual(numbers(50))
    expect(outcomes).toEqual([])
    expect(timings.length).toBeGreaterThan(0)
  })

  test('finds processes that begin to serve while it runs', async () => {
    const { pool, addServer, outcomes } = await useCluster({ servers: 0 })
    const endless = function* () {
      while (!outcomes.includes('done')) yield 20
    }
    const map = pool.map(give, endless(), DISTRIBUTED).then((outputs) => outputs)
    addServer()
    expect(new Set(await map)).toEqual(new Set([20]))
  })

  test('is complete though the process that serves is killed', async () => {
    const { pool, servers, starts, outcomes } = await useCluster()
    const map = pool.map(give, ITEMS, DISTRIBUTED).then((outputs) => outputs)
    await until(() => starts.length > 0, 'a chunk has begun')
    servers[0]?.kill()
    expect(await map).toEqual(ITEMS)
    expect(outcomes).toContain('lost')
  })

  test('is complete though one of several is killed: another runs its chunks', async () => {
    const { pool, servers, starts, outcomes } = await useCluster({ servers: 2 })
    const map = pool.map(give, ITEMS, DISTRIBUTED).then((outputs) => outputs)
    await until(() => starts.some(({ server }) => server === 'server-0'), 'it has begun')
    servers[0]?.kill()
    expect(await map).toEqual(ITEMS)
    expect(outcomes).not.toContain('failed')
    expect(new Set(starts.map(({ id }) => id)).size).toBeLessThan(starts.length)
  })

  test.each([
    ['and a third finds it', 1],
    ['and there is no other', 0],
  ])('fails with a call that has ended two processes, %s', async (_, further) => {
    const { pool, servers, addServer, starts } = await useCluster({ servers: 2 })
    await occupy(pool)
    const input = { number: 1, ms: 100, kills: true, spared: process.pid }
    const call = failure(pool.run(killOthers, input, DISTRIBUTED))
    await until(() => servers.every(({ hasEnded }) => hasEnded()), 'both have ended')
    for (let number = 0; number < further; number++) addServer()
    const error = await call
    expect(error).toBeInstanceOf(TaskError)
    expect(error.message).toBe(
      'The task remote.kill-others failed: 2 processes ended while they ran it',
    )
    expect(starts.length).toBeGreaterThan(1)
  })

  test.each([
    ['is killed', 'SIGKILL'],
    ['freezes', 'SIGSTOP'],
  ] as const)('goes on in this process when Valkey %s, and finds it again', async (_, signal) => {
    const { pool, valkey, starts, outcomes, places } = await useCluster()
    const map = pool.map(give, ITEMS, DISTRIBUTED).then((outputs) => outputs)
    await until(() => starts.length > 0, 'a chunk has begun')
    valkey.send(signal)
    expect(await map).toEqual(ITEMS)
    expect(outcomes).toContain('lost')
    expect(places()).toBe(0)
    if (signal === 'SIGSTOP') valkey.send('SIGCONT')
    else await valkey.restart()
    await until(() => places() === 2, 'the server is found again')
    const before = outcomes.length
    await until(async () => {
      expect(await pool.map(give, ITEMS.slice(0, 40), DISTRIBUTED)).toHaveLength(40)
      return outcomes.slice(before).includes('done')
    }, 'it serves')
  })

  test('finds its servers again after all connections were cut without a word', async () => {
    let silence = () => {}
    const route = async (url: string) => {
      const proxy = await useProxy(() => url)
      silence = proxy.silence
      return proxy.urlOf(url)
    }
    const { pool, places, outcomes } = await useCluster({ route })
    silence()
    await until(() => places() === 0, 'the loss is noticed')
    await until(() => places() === 2, 'the server is found again')
    expect(await pool.map(give, ITEMS, DISTRIBUTED)).toEqual(ITEMS)
    await until(async () => {
      await pool.map(give, ITEMS.slice(0, 40), DISTRIBUTED)
      return outcomes.includes('done')
    }, 'it serves')
  })

  test('runs here while Valkey takes no data, and tries that now and then', async () => {
    const { pool, connections, outcomes } = await useCluster()
    await connections.commands.config('SET', 'maxmemory', 1)
    const endAt = performance.now() + 3_000
    const items = function* () {
      while (performance.now() < endAt) yield 40
    }
    expect(new Set(await pool.map(give, items(), DISTRIBUTED))).toEqual(new Set([40]))
    expect(new Set(outcomes)).toEqual(new Set(['lost']))
    expect(outcomes.length).toBeLessThan(10)
  })

  test('is complete though Valkey forgets everything at once', async () => {
    const { pool, valkey, starts, outcomes } = await useCluster()
    const map = pool.map(give, ITEMS, DISTRIBUTED).then((outputs) => outputs)
    await until(() => starts.length > 0, 'a chunk has begun')
    await valkey.restart()
    expect(await map).toEqual(ITEMS)
    expect(outcomes).not.toContain('failed')
  })

  test('loses nothing to a process that stops, and sends it no more', async () => {
    const { pool, servers, starts, outcomes } = await useCluster()
    const map = pool.map(give, ITEMS, DISTRIBUTED).then((outputs) => outputs)
    await until(() => starts.length > 0, 'a chunk has begun')
    servers[0]?.kill('SIGTERM')
    expect(await map).toEqual(ITEMS)
    expect(await servers[0]?.exitCode).toBe(0)
    expect(outcomes).toContain('done')
  })

  test('keeps a task here that a server lacks', async () => {
    const { pool, addServer, places, outcomes } = await useCluster({ servers: 1 })
    addServer({ LACKS: 'test.give' })
    await until(() => places() === 0, 'the older server is known')
    expect(await pool.map(give, ITEMS.slice(0, 30), DISTRIBUTED)).toHaveLength(30)
    expect(outcomes).toEqual([])
  })

  test('leaves nothing in Valkey', async () => {
    const { pool, connections, outcomes, client } = await useCluster()
    await pool.map(give, ITEMS.slice(0, 50), DISTRIBUTED)
    for await (const _ of pool.map(give, ITEMS, DISTRIBUTED)) if (client.running > 0) break
    await until(() => outcomes.includes('cancelled'), 'the rest is cancelled')
    await until(async () => {
      const keys = await connections.commands.keys('*')
      return keys.every((key) => QUEUE_KEYS.test(key))
    }, 'only the queue itself is left')
  })
})
