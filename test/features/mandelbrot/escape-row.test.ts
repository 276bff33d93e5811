import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import fc from 'fast-check'
import { afterAll, describe, expect, test } from 'vitest'
import { MAX_SIZE } from '../../../src/features/mandelbrot/contract.ts'
import {
  BAILOUT,
  escapeRowWasm as compiled,
  type EscapedRow,
  escapeRow,
  loadKernel,
} from '../../../src/features/mandelbrot/escape-row.ts'

type Line = Parameters<typeof escapeRow>[0]

/** Where it is not built, every test here must fail. */
const escapeRowWasm = (line: Line): EscapedRow => {
  if (!compiled) throw new Error('The kernel is not built')
  return compiled(line)
}

describe.each([
  ['TypeScript', escapeRow],
  ['the kernel', escapeRowWasm],
])('in %s', (_, escapes) => {
  const countAt = (x: number, y: number, iterations: number) =>
    escapes({ left: x, step: 0, imaginary: y, width: 1, iterations }).counts[0]

  test.each([
    [0, 0],
    [-1, 0],
    [-2, 0],
    [0.25, 0],
    [0, 1],
    [-0.1225, 0.7449],
    [-1.75488, 0],
  ])('%d + %d i never escapes', (x, y) => {
    expect(countAt(x, y, 1_000)).toBe(1_000)
  })

  test.each([
    // 2, 6, 38, 1446
    [2, 0, 3],
    // 1, 2, 5, 26, 677
    [1, 0, 4],
    // -4, 12, 140, 19596
    [-4, 0, 3],
    [0.26, 0, 31],
    [-0.75, 0.01, 317],
  ])('%d + %d i is inside for %d iterations', (x, y, count) => {
    expect(countAt(x, y, 1_000)).toBe(count)
  })

  test('says how far a point got', () => {
    expect(escapes({ left: 2, step: 0, imaginary: 0, width: 1, iterations: 10 }).norms[0]).toBe(
      1446 ** 2,
    )
  })

  test('a point that would escape with the next iteration counts as one of the set', () => {
    expect(countAt(2, 0, 3)).toBe(3)
    expect(countAt(2, 0, 1)).toBe(1)
  })

  test('a row has its points in order, each one step from the last', () => {
    const row = escapes({
      left: -2.5,
      step: 0.5,
      imaginary: 0.25,
      width: 7,
      iterations: 50,
    }).counts.slice(0, 7)
    const each = Array.from({ length: 7 }, (_, column) => countAt(-2.5 + column * 0.5, 0.25, 50))
    expect([...row]).toEqual(each)
    expect(new Set(each).size).toBeGreaterThan(3)
  })
})

test('both are the same to the last bit, wherever one looks', () => {
  const coordinate = fc.double({ min: -4, max: 4, noNaN: true })
  const lines = fc.record({
    left: coordinate,
    imaginary: coordinate,
    step: fc.oneof(
      fc.double({ min: 1e-16, max: 1e-3, noNaN: true }),
      fc.double({ min: 1e-3, max: 1, noNaN: true }),
    ),
    width: fc.integer({ min: 1, max: 67 }),
    iterations: fc.integer({ min: 1, max: 300 }),
  })
  fc.assert(
    fc.property(lines, (line) => {
      expect(read(escapeRowWasm(line), line)).toEqual(read(escapeRow(line), line))
    }),
  )
})

test('the kernel has memory for the widest picture', () => {
  const kernel = loadKernel<{ MAX_WIDTH: { value: number } }>(
    new URL('../../../src/features/mandelbrot/escape-row.wasm', import.meta.url),
  )
  expect(kernel?.MAX_WIDTH.value).toBeGreaterThanOrEqual(MAX_SIZE)
})

/** What a row says of its points; of one of the set, only that it is one. */
function read({ counts, norms }: EscapedRow, { width, iterations }: Line) {
  return Array.from(counts.subarray(0, width), (count, column) => {
    if (count === iterations) return 'inside'
    expect(norms[column]).toBeGreaterThan(BAILOUT)
    return [count, norms[column]]
  })
}

describe('loadKernel', () => {
  const folder = mkdtempSync(join(tmpdir(), 'kernel-'))
  afterAll(() => rmSync(folder, { recursive: true }))

  const toFile = (name: string) => pathToFileURL(join(folder, name))

  test('gives what a kernel exports', () => {
    // (module (global (export "answer") i32 (i32.const 42)))
    writeFileSync(
      toFile('answer.wasm'),
      Buffer.from('0061736d010000000606017f00412a0b070a0106616e737765720300', 'hex'),
    )
    expect(loadKernel<{ answer: { value: number } }>(toFile('answer.wasm'))?.answer.value).toBe(42)
  })

  test('gives nothing where the kernel is not built', () => {
    expect(loadKernel(toFile('absent.wasm'))).toBeUndefined()
  })

  test('does not take a broken kernel for one that is not built', () => {
    writeFileSync(toFile('broken.wasm'), 'no kernel')
    expect(() => loadKernel(toFile('broken.wasm'))).toThrow(/magic word/)
  })
})
