import { describe, expect, test } from 'vitest'
import { TaskError } from '../errors.ts'
import type { Task } from '../task.ts'
import { expectFullSize, failure, usePool } from './support/pool.ts'
import {
  blockOrNot,
  echo,
  exhaustMemory,
  fill,
  growMap,
  growStrings,
  Latch,
  measureKept,
  moveBack,
} from './support/tasks.ts'

describe('shared memory', () => {
  test.each([
    [Float64Array, 0.1],
    [Float32Array, 0.5],
    [Int32Array, -7],
    [Uint32Array, 2 ** 31],
    [Int16Array, -7],
    [Uint16Array, 2 ** 15],
    [Int8Array, -7],
    [Uint8Array, 200],
    [Uint8ClampedArray, 255],
    [BigInt64Array, -7n],
    [BigUint64Array, 2n ** 63n],
  ] as const)('is a %o of zeros that a task can fill', async (type, value) => {
    const { pool } = await usePool({ threads: 1 })
    const array = pool.share(type as typeof Float64Array, 3)
    expect(array).toBeInstanceOf(type)
    expect([...array].map(Number)).toEqual([0, 0, 0])
    await pool.run(fill, { array, value })
    expect([...array]).toEqual([value, value, value])
  })

  test('is filled by many at once, each a part of it', async () => {
    const { pool } = await usePool()
    const array = pool.share(Float64Array, 1_000)
    const rows = Array.from({ length: 100 }, (_, row) => ({
      array: array.subarray(row * 10, (row + 1) * 10),
      value: row,
    }))
    await pool.map(fill, rows)
    expect([...array]).toEqual(Array.from({ length: 1_000 }, (_, index) => Math.floor(index / 10)))
  })
})

describe('buffers that are transferred', () => {
  test('are moved to the thread and back, and empty where they were', async () => {
    const { pool } = await usePool({ threads: 1 })
    const bytes = new Uint8Array(1 << 20).fill(7)
    const moved = pool.run(moveBack, bytes, { transfer: [bytes.buffer] })
    expect(bytes.byteLength).toBe(0)
    const back = await moved
    expect([back.byteLength, back[0], back.at(-1)]).toEqual([1 << 20, 7, 7])
    expect(await pool.run(measureKept, null)).toBe(0)
  })

  test('stay here while they wait for a thread, and when nothing comes of it', async () => {
    const { pool } = await usePool({ threads: 1 })
    const bytes = new Uint8Array(8)
    const latch = new Latch()
    const controller = new AbortController()
    const occupied = pool.run(blockOrNot, latch.cells)
    const dropped = failure(
      pool.run(moveBack, bytes, { transfer: [bytes.buffer], signal: controller.signal }),
    )
    controller.abort()
    await dropped
    latch.release()
    await occupied
    expect(bytes.byteLength).toBe(8)
  })

  test('that are none, or gone already, are an error of the call', async () => {
    const { pool, crashes } = await usePool({ threads: 1 })
    const bytes = new Uint8Array(8)
    bytes.buffer.transfer()
    for (const transfer of [[bytes.buffer], [{} as ArrayBuffer]])
      expect((await failure(pool.run(echo, null, { transfer }))).name).toMatch(
        /DataCloneError|TypeError/,
      )
    await expectFullSize(pool, 1)
    expect(crashes).toEqual([])
  })
})

describe('a task that needs more memory than its thread may have', () => {
  test.each([
    ['small arrays', exhaustMemory],
    ['strings', growStrings],
    ['a map of objects', growMap],
  ] as [string, Task<null, never>][])('fails alone: %s', async (_, task) => {
    const { pool, crashes } = await usePool({ threads: 2, maxHeapMb: 32 })
    const latch = new Latch()
    const neighbour = pool.run(blockOrNot, latch.cells)
    const error = await failure(pool.run(task, null))
    expect(error).toBeInstanceOf(TaskError)
    expect(error).toMatchObject({ task: task.name, cause: { code: 'ERR_WORKER_OUT_OF_MEMORY' } })
    latch.release()
    expect(await neighbour).toBeGreaterThan(0)
    expect(crashes.length).toBe(1)
    await expectFullSize(pool, 2)
  })

  test('fails alone however much of it is young', async () => {
    const { pool, crashes } = await usePool({ threads: 1, maxHeapMb: 53 })
    for (let times = 1; times <= 12; times++) {
      expect(await failure(pool.run(exhaustMemory, null))).toMatchObject({
        cause: { code: 'ERR_WORKER_OUT_OF_MEMORY' },
      })
      expect(crashes.length).toBe(times)
    }
  })
})
