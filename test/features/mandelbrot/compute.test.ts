import { hash } from 'node:crypto'
import { detachedContext } from '@offloop/workpool/task'
import { describe, expect, test } from 'vitest'
import { CancelledContext } from '../../../packages/workpool/test/support/cancelled-context.ts'
import { drawRows } from '../../../src/features/mandelbrot/compute.ts'
import { DRAWING_VERSION, type Tile, type View } from '../../../src/features/mandelbrot/contract.ts'
import { PALETTE } from '../../../src/features/mandelbrot/picture.ts'

const WHOLE: View = { width: 120, height: 80, iterations: 200, x: -0.65, y: 0, scale: 3.6 }

const blank = ({ width, height }: View) => new Uint8Array(new SharedArrayBuffer(width * height))

const canvasOf = (pixels: Uint8Array) => ({ pixels, missing: new Int32Array(1) })

function draw(view: View, kernel: Tile['kernel'] = 'wasm') {
  const pixels = blank(view)
  drawRows({ view, kernel, first: 0, every: 1, canvas: canvasOf(pixels) }, detachedContext)
  return pixels
}

describe('both kernels draw the same picture', () => {
  test.each<[string, Partial<View>]>([
    ['of the whole set', {}],
    ['of a valley of spirals', { x: -0.7436, y: 0.1319, scale: 0.01, iterations: 1_000 }],
    [
      'of a small copy of the set',
      { x: -0.743643887, y: 0.131825904, scale: 5e-6, iterations: 2_000 },
    ],
    ['where doubles end', { x: -0.743643887, y: 0.131825904, scale: 1e-12, iterations: 3_000 }],
    ['of the inside', { x: -0.2, y: 0, scale: 0.1 }],
    ['of the outside', { x: 3, y: 3, scale: 2 }],
    ['as far out as it goes', { x: -4, y: 4, scale: 8 }],
    ['of an odd width', { width: 77, height: 51 }],
    ['one more than the kernel takes at a time', { width: 5, height: 3 }],
    ['of one pixel', { width: 1, height: 1 }],
    ['of one row', { width: 119, height: 1 }],
    ['of one column', { width: 1, height: 119 }],
    ['with one iteration', { iterations: 1 }],
    ['with an odd number of iterations', { iterations: 33 }],
  ])('%s', (_, change) => {
    const view = { ...WHOLE, ...change }
    expect(draw(view, 'wasm')).toEqual(draw(view, 'typescript'))
  })
})

describe('a picture', () => {
  test('is symmetrical where the set is', () => {
    const pixels = draw(WHOLE)
    for (let row = 0; row < WHOLE.height / 2; row++)
      expect(rowOf(pixels, row)).toEqual(rowOf(pixels, WHOLE.height - 1 - row))
  })

  test('has its point in the middle', () => {
    expect(draw({ ...WHOLE, x: 0, width: 3, height: 3 })[4]).toBe(0)
    expect(draw({ ...WHOLE, x: 0.3, width: 3, height: 3 })[4]).not.toBe(0)
  })

  test('has up above and right on the right', () => {
    const view = { width: 3, height: 3, iterations: 200, scale: 3 }
    // Of the nine points around it, the set has i, -1, 0 and -i.
    const inside = [...draw({ ...view, x: 0, y: 0 })].map((index) => index === 0)
    expect(inside).toEqual([false, true, false, true, true, false, false, true, false])
    // One up: what was in the middle is below it.
    expect(draw({ ...view, x: -1, y: 1 })[4]).not.toBe(0)
    expect(draw({ ...view, x: -1, y: 1 })[7]).toBe(0)
  })

  test('is the same in tiles', () => {
    const pixels = blank(WHOLE)
    for (const first of [2, 0, 1])
      drawRows(
        { view: WHOLE, kernel: 'wasm', first, every: 3, canvas: canvasOf(pixels) },
        detachedContext,
      )
    expect(pixels).toEqual(draw(WHOLE))
  })

  test('touches no rows but its own', () => {
    const pixels = blank(WHOLE).fill(7)
    drawRows(
      { view: WHOLE, kernel: 'wasm', first: 10, every: 80, canvas: canvasOf(pixels) },
      detachedContext,
    )
    expect(rowOf(pixels, 9).every((index) => index === 7)).toBe(true)
    expect(rowOf(pixels, 10)).toEqual(rowOf(draw(WHOLE), 10))
    expect(rowOf(pixels, 11).every((index) => index === 7)).toBe(true)
  })

  test('of another version of the code is told from this one: if this fails, raise DRAWING_VERSION', () => {
    const view = { ...WHOLE, x: -0.7436, y: 0.1319, scale: 0.01, iterations: 1_000 }
    const drawn = hash('sha256', Buffer.concat([PALETTE, draw(WHOLE), draw(view)]))
    expect([DRAWING_VERSION, drawn]).toEqual([
      1,
      '1facf0949fee3927c679f77fa38658f1fb33affbf1b461355d39e0a68335f4ed',
    ])
  })
})

test('looks at its caller before each row', () => {
  const cancelled = new CancelledContext(3)
  const pixels = blank(WHOLE).fill(7)
  const tile: Tile = { view: WHOLE, kernel: 'wasm', first: 0, every: 1, canvas: canvasOf(pixels) }
  expect(() => drawRows(tile, cancelled.context)).toThrow(cancelled.reason)
  expect(
    [rowOf(pixels, 1), rowOf(pixels, 2)].map((row) => row.every((index) => index === 7)),
  ).toEqual([false, true])
})

const rowOf = (pixels: Uint8Array, row: number) =>
  pixels.subarray(row * WHOLE.width, (row + 1) * WHOLE.width)
