import { describe, expect, onTestFinished, test } from 'vitest'
import { until } from '../../../test/support/until.ts'
import { TaskError } from '../errors.ts'
import { task } from '../task.ts'
import {
  cancellation,
  expectFullSize,
  failure,
  newCounter,
  occupy,
  usePool,
} from './support/pool.ts'
import {
  computeFor,
  count,
  countRun,
  double,
  give,
  giveFunctionAt,
  giveLater,
  Latch,
  list,
  nowhere,
  spin,
  write,
  writeAfter,
} from './support/tasks.ts'

const numbers = (length: number) => Array.from({ length }, (_, index) => index)
/** Items that take between 0 and 6 ms, in no order. */
const UNEVEN = numbers(60).map((index) => (index * 37) % 7)

/** So many that chunks have grown, and the last is not full. */
const BEFORE_STALL = 3_333

describe('a map', () => {
  test.each([
    ['an array', (items: number[]) => items],
    [
      'an iterable',
      (items: number[]) => new Set(items.keys()).values().map((index) => items[index] as number),
    ],
    ['an async iterable', asyncOf],
  ])('of %s gives its results in order, however uneven the items', async (_, itemsOf) => {
    const { pool } = await usePool({ threads: 3 })
    expect(await pool.map(give, itemsOf(UNEVEN))).toEqual(UNEVEN)
    expect(await readAll(pool.map(give, itemsOf(UNEVEN)))).toEqual(UNEVEN)
  })

  test('of asynchronous tasks gives their results in order, too', async () => {
    const { pool } = await usePool()
    const items = numbers(40).map((index) => (index * 5) % 7)
    expect(await pool.map(giveLater, items)).toEqual(items)
  })

  test.each([
    ['an array', []],
    ['an iterable', new Set<number>()],
    ['an async iterable', asyncOf([])],
  ])('of %s without items gives no results', async (_, items) => {
    const { pool, timings } = await usePool()
    expect(await pool.map(double, items)).toEqual([])
    expect(timings).toEqual([])
  })

  test('starts once somebody wants its results, and only once', async () => {
    const { pool, timings } = await usePool()
    const map = pool.map(double, [1, 2])
    expect(await pool.run(double, 1)).toBe(2)
    expect(timings.length).toBe(1)
    expect(await Promise.all([map, map])).toEqual([
      [2, 4],
      [2, 4],
    ])
    expect(timings.length).toBe(3)
  })

  test('sends tiny items in batches', async () => {
    const { pool, timings } = await usePool()
    const items = numbers(20_000)
    expect(await pool.map(double, items)).toEqual(items.map((item) => item * 2))
    expect(sum(timings.map(({ items }) => items))).toBe(20_000)
    expect(timings.length).toBeLessThan(400)
  })

  test('sends them in batches from the start, once the task is known', async () => {
    const { pool, timings } = await usePool()
    await pool.map(double, numbers(2_000))
    const first = timings.length
    await pool.map(double, numbers(2_000))
    expect(timings[0]?.items).toBe(1)
    expect(timings[first]?.items).toBeGreaterThan(1)
  })

  test('sends heavy items one by one, to whichever thread is free', async () => {
    const { pool, timings } = await usePool({ threads: 2 })
    await pool.map(computeFor, [300, ...numbers(12).map(() => 8)])
    expect(timings.map(({ items }) => items)).toEqual(timings.map(() => 1))
    expect(new Set(timings.map(({ thread }) => thread)).size).toBe(2)
    const longest = timings.find(({ runMs }) => runMs >= 300)
    // While one thread was busy with it, the other went on.
    expect(timings.filter(({ thread }) => thread !== longest?.thread).length).toBeGreaterThan(6)
  })

  test('shares out what is left of a batch whose items are heavier than those before', async () => {
    const { pool, timings } = await usePool({ threads: 2 })
    const items = numbers(3_000).map((number) => ({ number, ms: number < 2_950 ? 0 : 12 }))
    const expected = items.map(({ number }) => `${number} `)
    expect(await pool.map(writeAfter, items)).toEqual(expected)
    expect(await pool.map(writeAfter, items).reduce('')).toBe(expected.join(''))
    expect(sum(timings.map(({ items }) => items))).toBe(2 * items.length)
    // All 50 of them in one batch would be a single long one each time.
    expect(timings.filter(({ runMs }) => runMs >= 12).length).toBeGreaterThan(20)
  })

  test('a batch that is cut short by an error ends as any other', async () => {
    const { pool } = await usePool({ threads: 1 })
    const items = numbers(1_000).map((number) => ({
      number,
      ms: number < 950 ? 0 : number === 990 ? -1 : 5,
    }))
    expect(await failure(pool.map(writeAfter, items))).toMatchObject({ item: 990 })
  })

  test.each([1, 1.9])('uses no more threads than it may: %s', async (concurrency) => {
    const { pool } = await usePool({ threads: 3 })
    let most = 0
    const timer = setInterval(() => (most = Math.max(most, pool.running)), 1)
    onTestFinished(() => clearInterval(timer))
    expect(await pool.map(give, numbers(30), { concurrency })).toEqual(numbers(30))
    expect(most).toBe(1)
  })

  test('has at least one thread, whatever the concurrency', async () => {
    const { pool } = await usePool()
    expect(await pool.map(double, [1, 2, 3], { concurrency: 0 })).toEqual([2, 4, 6])
  })

  test.each([undefined, null, 5, {}, { [Symbol.iterator]: 1 }])(
    'says what is wrong with items that are none: %j',
    async (items) => {
      const { pool } = await usePool()
      const error = await failure(pool.map(double, items as never))
      expect(error).toBeInstanceOf(TypeError)
      expect(error).toMatchObject({
        message: expect.stringMatching(
          /^Expected an array, an iterable or .*, got (undefined|null|5|{.*})$/,
        ),
      })
    },
  )

  test('does not take a concurrency that is not a number for none', async () => {
    const { pool } = await usePool()
    expect(() => pool.map(double, [1], { concurrency: Number.NaN })).toThrow(RangeError)
  })

  test('reports progress, never backwards, and at last that all is done', async () => {
    const { pool } = await usePool()
    for (const [items, total] of [
      [numbers(3_000), 3_000],
      [asyncOf(numbers(300)), undefined],
    ] as const) {
      const progress: { done: number; total: number | undefined }[] = []
      await pool.map(double, items, { onProgress: (now) => progress.push(now) })
      const done = progress.map((now) => now.done)
      expect(done).toEqual(done.toSorted((left, right) => left - right))
      expect(progress.at(-1)).toEqual({ done: total ?? 300, total })
    }
  })

  test('counts the items that it was given, also where they are cut into pieces', async () => {
    const { pool } = await usePool()
    const items = numbers(4).map((index) => ({ from: index * 1_000, to: (index + 1) * 1_000 }))
    const progress: { done: number; total: number | undefined }[] = []
    await pool.map(list, items, { onProgress: (now) => progress.push(now) })
    expect(progress[0]).toEqual({ done: 0, total: 4 })
    expect(progress.at(-1)).toEqual({ done: 4, total: 4 })
    expect(new Set(progress.map(({ done }) => done)).isSubsetOf(new Set([0, 1, 2, 3, 4]))).toBe(
      true,
    )
  })
})

describe('a source that is through', () => {
  test.each(['iterator', 'asyncIterator'] as const)(
    'is neither asked again nor closed: %s',
    async (kind) => {
      const { pool } = await usePool()
      const calls: string[] = []
      const next = () => {
        calls.push('next')
        return calls.length <= 3
          ? { done: false, value: calls.length }
          : { done: true, value: undefined }
      }
      const close = () => {
        calls.push('return')
        return { done: true, value: undefined }
      }
      const source = { [Symbol[kind]]: () => ({ next, return: close }) } as unknown as
        | Iterable<number>
        | AsyncIterable<number>
      expect(await pool.map(double, source)).toEqual([2, 4, 6])
      expect(calls).toEqual(['next', 'next', 'next', 'next'])
    },
  )
})

describe('a stream of results', () => {
  test('takes no more from an endless source than its reader keeps up with', async () => {
    const { pool } = await usePool()
    const endless = counting()
    let read = 0
    let ahead = 0
    for await (const output of pool.map(
      give,
      endless.items(() => 5),
    )) {
      expect(output).toBe(5)
      await until(() => pool.running === 0, 'all that was taken is done')
      ahead = Math.max(ahead, endless.taken - read++)
      if (read === 20) break
    }
    expect(ahead).toBeLessThanOrEqual(10)
    expect(endless.closed).toBe(1)
  })

  test('of tiny items from an endless asynchronous source is bounded, too', async () => {
    const { pool } = await usePool()
    const endless = counting()
    let read = 0
    let ahead = 0
    for await (const output of pool.map(double, endless.asyncItems())) {
      expect(output).toBe(2 * read)
      ahead = Math.max(ahead, endless.taken - read++)
      if (read === 50_000) break
    }
    expect(ahead).toBeLessThanOrEqual(10 * 1_024)
    await until(() => endless.closed === 1, 'the source is closed')
  })

  test('that nobody reads on ends what it began', async () => {
    const { pool, crashes } = await usePool({ threads: 2 })
    const latches = [new Latch(), new Latch()]
    const endless = (function* () {
      yield null
      for (const { cells } of latches) yield cells
    })()
    for await (const _ of pool.map(task<unknown, number>('test.block-or-not'), endless)) {
      await latches[0]?.untilStarted()
      break
    }
    expect(endless.next().done).toBe(true)
    await until(() => pool.running === 0, 'all threads are free')
    await expectFullSize(pool, 2)
    expect(crashes).toEqual([])
  })

  test('does not hold back the items of a source that stalls', async () => {
    const { pool } = await usePool()
    const { promise: more, resolve } = Promise.withResolvers<void>()
    const results = pool.map(double, stalling(more))[Symbol.asyncIterator]()
    for (let item = 0; item < BEFORE_STALL; item++)
      expect((await results.next()).value).toBe(2 * item)
    resolve()
    expect((await results.next()).value).toBe(2 * BEFORE_STALL)
    expect((await results.next()).done).toBe(true)
  })

  test('whose source stalls ends at once when it is cancelled, or its time is up', async () => {
    const { pool } = await usePool()
    const never = new Promise<void>(() => {})
    const { signal, abort, reason } = cancellation()
    const cancelled = failure(pool.map(double, stalling(never), { signal }))
    const late = failure(pool.map(double, stalling(never), { timeoutMs: 100 }))
    expect(await late).toMatchObject({ code: 'deadline_exceeded' })
    abort()
    expect(await cancelled).toBe(reason)
  })
})

describe('the first error of a map', () => {
  test('ends the rest and names the item', async () => {
    const { pool, timings } = await usePool()
    const items = numbers(20_000)
    const runs = new Int32Array(new SharedArrayBuffer(4 * items.length))
    const inputs = items.map((place) =>
      place === 5_000 ? (null as never) : { runs, place, ms: 0 },
    )
    const error = await failure(pool.map(countRun, inputs))
    expect(error).toBeInstanceOf(TaskError)
    expect(error).toMatchObject({ task: countRun.name, item: 5_000, cause: { name: 'TypeError' } })
    await until(() => pool.running + pool.queued === 0, 'the rest has ended')
    expect(runs.at(-1)).toBe(0)
    expect(sum(timings.map(({ items }) => items))).toBeLessThan(20_000)
    await expectFullSize(pool, 2)
  })

  test('is thrown as it is, also while an item before it is computed', async () => {
    const { pool } = await usePool({ threads: 2 })
    const error = await failure(pool.map(give, [0, 300, 1n as never]))
    expect(error).toMatchObject({
      item: 2,
      message: expect.stringContaining('on item 2: Cannot mix BigInt'),
    })
  })

  test('names the item that was given, where it was cut into pieces', async () => {
    const { pool } = await usePool()
    const items = numbers(4).map((index) => ({
      from: index * 1_000,
      to: (index + 1) * 1_000,
      failAt: 2_718,
    }))
    const error = await failure(pool.map(list, items))
    expect(error).toMatchObject({
      item: 2,
      message: 'The task test.list failed on item 2: No 2718',
    })
  })

  test('names the item that took its thread down in the midst of a chunk', async () => {
    const { pool, crashes, timings } = await usePool()
    const items = numbers(9_000).map((from) => ({ from, to: from + 1, exitAt: 7_777 }))
    const error = await failure(pool.map(list, items))
    expect(error).toMatchObject({
      item: 7_777,
      message: expect.stringContaining('exited with code 1'),
    })
    expect(timings.find(({ outcome }) => outcome === 'crashed')?.items).toBeGreaterThan(1)
    expect(crashes.length).toBe(1)
    await expectFullSize(pool, 2)
  })

  test('names the item whose output cannot be sent', async () => {
    const { pool } = await usePool()
    const error = await failure(
      pool.map(
        giveFunctionAt,
        numbers(5_000).map((number) => ({ number, at: 3_333 })),
      ),
    )
    expect(error).toMatchObject({
      item: 3_333,
      message: expect.stringMatching(/could not be cloned/),
    })
  })

  test('names the first item where no thread knows the task', async () => {
    const { pool } = await usePool({ threads: 1 })
    await pool.map(double, numbers(100))
    expect(await failure(pool.map(nowhere, [null, null], { concurrency: 1 }))).toMatchObject({
      item: 0,
    })
  })

  test.each([
    ['an iterable', throwing],
    ['an async iterable', () => asyncOf(throwing())],
  ])('may be that of %s', async (_, itemsOf) => {
    const { pool } = await usePool()
    expect(await failure(pool.map(give, itemsOf()))).toMatchObject({ message: 'no more' })
    expect(await failure(readAll(pool.map(give, itemsOf())))).toMatchObject({
      message: 'no more',
    })
    await expectFullSize(pool, 2)
  })

  test('may be thrown by onProgress', async () => {
    const { pool } = await usePool()
    const onProgress = () => {
      throw new Error('reported')
    }
    expect(await failure(pool.map(double, [1, 2, 3], { onProgress }))).toMatchObject({
      message: 'reported',
    })
  })

  test('may be an item that cannot be sent', async () => {
    const { pool } = await usePool()
    const error = await failure(pool.map(double, [1, 2, (() => {}) as never]))
    expect(error.name).toBe('DataCloneError')
  })
})

describe('cancelling a map', () => {
  test('whose signal is aborted already: nothing runs, nothing is taken', async () => {
    const { pool, timings } = await usePool()
    const { signal, abort, reason } = cancellation()
    abort()
    const endless = counting()
    await expect(pool.map(double, endless.items(), { signal })).rejects.toBe(reason)
    expect([endless.taken, timings.length]).toEqual([0, 0])
  })

  test('ends what runs, also what does not ask', async () => {
    const { pool, crashes } = await usePool({ threads: 2 })
    const { signal, abort, reason } = cancellation()
    const latches = [new Latch(), new Latch(), new Latch()]
    const cancelled = failure(
      pool.map(
        spin,
        latches.map(({ cells }) => cells),
        { signal },
      ),
    )
    await Promise.all(latches.slice(0, 2).map((latch) => latch.untilStarted()))
    abort()
    expect(await cancelled).toBe(reason)
    await expectFullSize(pool, 2)
    expect(latches[2]?.started).toBe(false)
    expect(crashes).toEqual([])
  })

  test('a chunk of tiny items asks between two of them: its thread lives on', async () => {
    const { pool } = await usePool({ threads: 1 })
    const { signal, abort, reason } = cancellation()
    const counter = newCounter()
    const cancelled = failure(pool.map(count, endlessly(counter), { signal }))
    await until(() => (counter[0] ?? 0) > 2_000, 'chunks have grown')
    abort()
    expect(await cancelled).toBe(reason)
    await expectFullSize(pool, 1)
  })

  test('ends it also where a chunk comes back with items that it had no time for', async () => {
    const items = [...Array(40).fill(0), ...Array(60).fill(30)]
    // One of the first chunks has light items and heavy ones.
    for (let chunk = 1; chunk <= 8; chunk++) {
      const { pool } = await usePool({ threads: 1 })
      const client = new AbortController()
      let chunks = 0
      const onProgress = () => {
        if (++chunks === chunk) client.abort()
      }
      const map = pool.map(computeFor, items, { signal: client.signal, onProgress })
      expect(await failure(map)).toHaveProperty('name', 'AbortError')
    }
  })

  test('a deadline is for the whole', async () => {
    const { pool } = await usePool()
    const endless = counting()
    const late = failure(
      pool.map(
        computeFor,
        endless.items(() => 5),
        { timeoutMs: 1_000 },
      ),
    )
    expect(await late).toMatchObject({
      code: 'deadline_exceeded',
      message: expect.stringContaining('1000 ms'),
    })
    expect([endless.closed, endless.taken > 10]).toEqual([1, true])
    expect(await pool.map(double, [1], { timeoutMs: 2 ** 40 })).toEqual([2])
  })
})

describe('reducing', () => {
  test('keeps the order, on the threads and between chunks', async () => {
    const { pool } = await usePool({ threads: 3 })
    const items = numbers(5_000)
    expect(await pool.map(write, items).reduce('')).toBe(items.join(''))
    expect(await pool.map(write, asyncOf(items)).reduce('>')).toBe(`>${items.join('')}`)
  })

  test('nothing gives what it began with', async () => {
    const { pool } = await usePool()
    expect(await pool.map(write, []).reduce('nothing')).toBe('nothing')
  })

  test('needs a join', async () => {
    const { pool } = await usePool()
    await expect(pool.map(double, [1]).reduce(0)).rejects.toThrow('test.double cannot be reduced')
  })

  test('names the item that failed', async () => {
    const { pool } = await usePool()
    const items = numbers(3_000).map((from) => ({ from, to: from + 1, failAt: 2_500 }))
    expect(await failure(pool.map(list, items).reduce([]))).toMatchObject({ item: 2_500 })
  })
})

describe('items that can be cut', () => {
  const RANGES = [
    { from: 0, to: 1 },
    { from: 1, to: 1 },
    { from: 1, to: 900 },
    { from: 900, to: 1_000 },
  ]
  const listOf = ({ from, to }: { from: number; to: number }) => numbers(to).slice(from)

  test('are, so that one of them is work for all threads', async () => {
    const { pool, timings } = await usePool()
    expect(await pool.map(list, [{ from: 0, to: 1_000 }])).toEqual([numbers(1_000)])
    expect(sum(timings.map(({ items }) => items))).toBeGreaterThan(50)
  })

  test('give one output each, put together in order', async () => {
    const { pool } = await usePool({ threads: 3 })
    expect(await pool.map(list, RANGES)).toEqual(RANGES.map(listOf))
    expect(await readAll(pool.map(list, RANGES))).toEqual(RANGES.map(listOf))
    expect(await pool.map(list, RANGES).reduce([-1])).toEqual([-1, ...numbers(1_000)])
  })

  test('count as one each, once all before it are through', async () => {
    const { pool } = await usePool()
    const done: number[] = []
    await pool.map(list, RANGES, { onProgress: (now) => done.push(now.done) })
    expect(done).toEqual(done.toSorted((left, right) => left - right))
    expect(done.at(-1)).toBe(RANGES.length)
  })
})

describe('a map and the bounds of the queue', () => {
  test('once begun it goes on, however much waits, and also while the service stops', async () => {
    const stopping = new AbortController()
    const { pool } = await usePool({ threads: 1, maxQueued: 20, stopping: stopping.signal })
    const results = pool.map(double, numbers(5_000))[Symbol.asyncIterator]()
    const outputs = [(await results.next()).value]
    const { latch } = await occupy(pool)
    const waiting = Array.from({ length: 20 - pool.queued }, () => pool.run(double, 1))
    await expect(pool.run(double, 1)).rejects.toMatchObject({ code: 'overloaded' })
    stopping.abort()
    const next = results.next()
    latch.release()
    outputs.push((await next).value)
    for (let next = await results.next(); !next.done; next = await results.next())
      outputs.push(next.value)
    expect(outputs).toEqual(numbers(5_000).map((number) => 2 * number))
    await Promise.all(waiting)
  })

  test('disposing ends it', async () => {
    const { pool } = await usePool()
    const ended = failure(pool.map(computeFor, endlessly(5)))
    await until(() => pool.running > 0, 'it has begun')
    await pool[Symbol.asyncDispose]()
    expect(await ended).toMatchObject({ code: 'unavailable' })
  })
})

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0)

async function readAll<Output>(outputs: AsyncIterable<Output>): Promise<Output[]> {
  const all: Output[] = []
  for await (const output of outputs) all.push(output)
  return all
}

async function* asyncOf<Item>(items: Iterable<Item>): AsyncGenerator<Item> {
  for (const item of items) {
    if (Math.random() < 0.2) await new Promise(setImmediate)
    yield item
  }
}

function* throwing() {
  for (let item = 0; item < 20; item++) yield 3
  throw new Error('no more')
}

function* endlessly<Item>(item: Item) {
  for (;;) yield item
}

/** Gives some items at once, and one more once `more` resolves. */
async function* stalling(more: Promise<void>) {
  yield* numbers(BEFORE_STALL)
  await more
  yield BEFORE_STALL
}

/** An endless source that knows how many were taken from it, and whether it was closed. */
function counting() {
  const source = { taken: 0, closed: 0, items, asyncItems }
  function* items(itemOf = (index: number) => index) {
    try {
      for (;;) yield itemOf(source.taken++)
    } finally {
      source.closed++
    }
  }
  async function* asyncItems() {
    yield* items()
  }
  return source
}
