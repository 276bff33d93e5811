import { z } from '@hono/zod-openapi'
import { task } from '@offloop/workpool/task'
import { integerParameter, numberParameter, withDefault } from '../../http/params.ts'

/** In pixels. The kernel has memory for rows twice as long. */
export const MAX_SIZE = 2_048
export const MAX_ITERATIONS = 5_000

/** Part of the ETag: raise it when pictures change. */
export const DRAWING_VERSION = 1

const Size = integerParameter(1, MAX_SIZE)

/** Beyond 2 in any direction there is nothing to see. */
const Coordinate = numberParameter(-4, 4)

export const Picture = z.strictObject({
  width: withDefault(Size, 960),
  height: withDefault(Size, 640),
  // Points that escape later count as part of the set.
  iterations: withDefault(integerParameter(1, MAX_ITERATIONS), 500),
  x: withDefault(Coordinate, -0.65),
  y: withDefault(Coordinate, 0),
  scale: withDefault(numberParameter(1e-12, 8), 3.6),
  // `typescript` is the fallback if the kernel is not built.
  kernel: z.enum(['wasm', 'typescript']).default('wasm'),
})

/** The part of the plane that is shown. */
export type View = Omit<z.infer<typeof Picture>, 'kernel'>

/** Memory that all threads share. */
export interface Canvas {
  /** One palette index per pixel. */
  pixels: Uint8Array
  /** One number: the tiles not drawn yet. */
  missing: Int32Array
}

/** Every `every`th row from `first` on: the cost of blocks would differ widely. */
export interface Tile {
  view: View
  kernel: z.infer<typeof Picture>['kernel']
  first: number
  every: number
  canvas: Canvas
}

/** The call that draws the last tile returns the picture as a PNG. */
export const drawTile = task<Tile, Uint8Array<ArrayBuffer> | undefined>('mandelbrot.tile', {
  join: (left, right) => left ?? right,
})
