import { describe, expect, test } from 'vitest'
import { encodePng } from '../../../src/features/mandelbrot/png.ts'
import { decodePng } from '../../support/png.ts'

const palette = Uint8Array.from({ length: 768 }, (_, at) => at % 251)

describe('a PNG', () => {
  test.each([
    [1, 1],
    [3, 2],
    [1, 300],
    [300, 1],
    [257, 129],
  ])('of %d × %d pixels has them all, and the palette', (width, height) => {
    const pixels = Uint8Array.from({ length: width * height }, (_, at) => (at * 7919) >> 3)
    const decoded = decodePng(Buffer.from(encodePng({ width, height }, pixels, palette)))
    expect(decoded).toEqual({
      width,
      height,
      palette: Buffer.from(palette),
      pixels: Buffer.from(pixels),
    })
  })

  test('can be moved to another thread, however small it is', () => {
    const png = encodePng({ width: 1, height: 1 }, Uint8Array.of(1), palette)
    const { byteLength } = png
    expect(structuredClone(png, { transfer: [png.buffer] }).byteLength).toBe(byteLength)
    expect(png.byteLength).toBe(0)
  })
})
