import { describe, expect, test } from 'vitest'
import { expectFullSize, failure, useCompute } from '../../../test/support/compute.ts'
import {
  echo,
  exhaustMemory,
  fill,
  growMap,
  growStrings,
  holdOrNot,
  Latch,
  lookAtKept,
  moveBack,
} from '../../../test/support/tasks.ts'
import type { Task } from '../task.ts'
import { TaskError } from '../task-error.ts'

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
    const { compute } = await useCompute({ threads: 1 })
    const array = compute.share(type as typeof Float64Array, 3)
    expect(array).toBeInstanceOf(type)
    expect([...array].map(Number)).toEqual([0, 0, 0])
    await compute.run(fill, { array, value })
    expect([...array]).toEqual([value, value, value])
  })

  test('is filled by many at once, each a part of it', async () => {
    const { compute } = await useCompute()
    const array = compute.share(Float64Array, 1_000)
    const rows = Array.from({ length: 100 }, (_, row) => ({
      array: array.subarray(row * 10, (row + 1) * 10),
      value: row,
    }))
    await compute.map(fill, rows)
    expect([...array]).toEqual(Array.from({ length: 1_000 }, (_, index) => Math.floor(index / 10)))
  })
})

describe('buffers that are transferred', () => {
  test('are moved to the thread and back, and empty where they were', async () => {
    const { compute } = await useCompute({ threads: 1 })
    const bytes = new Uint8Array(1 << 20).fill(7)
    const moved = compute.run(moveBack, bytes, { transfer: [bytes.buffer] })
    expect(bytes.byteLength).toBe(0)
    const back = await moved
    expect([back.byteLength, back[0], back.at(-1)]).toEqual([1 << 20, 7, 7])
    expect(await compute.run(lookAtKept, null)).toBe(0)
  })

  test('stay here while they wait for a thread, and when nothing comes of it', async () => {
    const { compute } = await useCompute({ threads: 1 })
    const bytes = new Uint8Array(8)
    const latch = new Latch()
    const controller = new AbortController()
    const held = compute.run(holdOrNot, latch.cells)
    const dropped = failure(
      compute.run(moveBack, bytes, { transfer: [bytes.buffer], signal: controller.signal }),
    )
    controller.abort()
    await dropped
    latch.release()
    await held
    expect(bytes.byteLength).toBe(8)
  })

  test('that are none, or gone already, are an error of the call', async () => {
    const { compute, crashes } = await useCompute({ threads: 1 })
    const bytes = new Uint8Array(8)
    bytes.buffer.transfer()
    for (const transfer of [[bytes.buffer], [{} as ArrayBuffer]])
      expect((await failure(compute.run(echo, null, { transfer }))).name).toMatch(
        /DataCloneError|TypeError/,
      )
    await expectFullSize(compute, 1)
    expect(crashes).toEqual([])
  })
})

describe('a task that needs more memory than its thread may have', () => {
  test.each([
    ['small arrays', exhaustMemory],
    ['strings', growStrings],
    ['a map of objects', growMap],
  ] as [string, Task<null, never>][])('fails alone: %s', async (_, task) => {
    const { compute, crashes } = await useCompute({ threads: 2, maxHeapMb: 32 })
    const latch = new Latch()
    const neighbour = compute.run(holdOrNot, latch.cells)
    const error = await failure(compute.run(task, null))
    expect(error).toBeInstanceOf(TaskError)
    expect(error).toMatchObject({ task: task.name, cause: { code: 'ERR_WORKER_OUT_OF_MEMORY' } })
    latch.release()
    expect(await neighbour).toBeGreaterThan(0)
    expect(crashes.length).toBe(1)
    await expectFullSize(compute, 2)
  })

  test('fails alone however much of it is young', async () => {
    const { compute, crashes } = await useCompute({ threads: 1, maxHeapMb: 53 })
    for (let times = 1; times <= 12; times++) {
      expect(await failure(compute.run(exhaustMemory, null))).toMatchObject({
        cause: { code: 'ERR_WORKER_OUT_OF_MEMORY' },
      })
      expect(crashes.length).toBe(times)
    }
  })
})
