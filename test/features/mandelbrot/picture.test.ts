import { describe, expect, test } from 'vitest'
import { MAX_ITERATIONS } from '../../../src/features/mandelbrot/contract.ts'
import { BAILOUT } from '../../../src/features/mandelbrot/escape-row.ts'
import { colourRow, encodePng, PALETTE } from '../../../src/features/mandelbrot/picture.ts'
import { decodePng } from '../../support/png.ts'

const BLACK = [0, 0, 0]

const rgbOf = (index: number) => [...PALETTE.subarray(3 * index, 3 * index + 3)]

/** The palette index of a point that was inside `count` times, then that far away. */
function indexOf(count: number, norm: number, iterations = MAX_ITERATIONS): number {
  const pixels = new Uint8Array(1)
  colourRow({ counts: Int32Array.of(count), norms: Float32Array.of(norm) }, iterations, pixels)
  return pixels[0] ?? Number.NaN
}

describe('the palette', () => {
  test('has 256 colours, of which the first is black', () => {
    expect([PALETTE.length, rgbOf(0)]).toEqual([768, BLACK])
  })

  test('fades from each colour into the next, and from the last into the first', () => {
    for (let index = 1; index < 256; index++) {
      const [here, next] = [rgbOf(index), rgbOf((index % 255) + 1)]
      for (const [channel, value] of here.entries())
        expect(Math.abs(value - (next[channel] ?? 0))).toBeLessThanOrEqual(8)
    }
  })
})

describe('the colour of a point', () => {
  test.each([1, 50, MAX_ITERATIONS])(
    'of the set is black, after %d iterations as well',
    (iterations) => {
      expect(rgbOf(indexOf(iterations, Number.POSITIVE_INFINITY, iterations))).toEqual(BLACK)
    },
  )

  test('that escaped is never black, after however many iterations', () => {
    for (let count = 1; count < MAX_ITERATIONS; count++)
      expect(indexOf(count, BAILOUT * 3)).toBeGreaterThan(0)
  })

  test('fades into the next iteration', () => {
    for (let count = 3; count < 200; count++) {
      const [late, early] = [
        indexOf(count, BAILOUT * 1.01),
        indexOf(count + 1, BAILOUT ** 2 * 0.99),
      ]
      const apart = Math.abs(late - early)
      expect(Math.min(apart, 255 - apart)).toBeLessThanOrEqual(1)
    }
  })

  test('does not depend on when a point that has not escaped would be given up', () => {
    expect(indexOf(20, BAILOUT * 5, 21)).toBe(indexOf(20, BAILOUT * 5, 2_000))
  })
})

describe('a PNG', () => {
  test.each([
    [1, 1],
    [3, 2],
    [1, 300],
    [300, 1],
    [257, 129],
  ])('of %d × %d pixels has them all, and the palette', (width, height) => {
    const pixels = Uint8Array.from({ length: width * height }, (_, at) => (at * 7919) >> 3)
    const decoded = decodePng(Buffer.from(encodePng({ width, height }, pixels)))
    expect(decoded).toEqual({
      width,
      height,
      palette: Buffer.from(PALETTE),
      pixels: Buffer.from(pixels),
    })
  })

  test('can be moved to another thread, however small it is', () => {
    const png = encodePng({ width: 1, height: 1 }, Uint8Array.of(1))
    const { byteLength } = png
    expect(structuredClone(png, { transfer: [png.buffer] }).byteLength).toBe(byteLength)
    expect(png.byteLength).toBe(0)
  })
})
