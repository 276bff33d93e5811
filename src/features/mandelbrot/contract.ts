import { task } from '@offloop/workpool/task'

/** In pixels. The kernel has memory for rows twice as long. */
export const MAX_SIZE = 2_048
export const MAX_ITERATIONS = 5_000

/** Part of each picture's ETag: raise it when the same view gets other pixels or colours. */
export const DRAWING_VERSION = 1

/** What a picture shows of the plane, and how precisely. */
export interface View {
  width: number
  height: number
  /** A point that has not escaped after this many counts as one of the set. */
  iterations: number
  /** The point in the middle. */
  x: number
  y: number
  /** How much of the plane the longer side shows. */
  scale: number
}

/** Both draw the same picture; `typescript` replaces `wasm` where that is not built. */
export type Kernel = 'wasm' | 'typescript'

/** Memory that all threads share. */
export interface Canvas {
  /** One palette index per pixel. */
  pixels: Uint8Array
  /** One number: how many tiles are not drawn yet. */
  missing: Int32Array
}

/**
 * Every `every`th row of a picture, from `first` on. Tiles of neighbouring rows would cost
 * unequally: those through the middle of the set cost many times those at its edge.
 */
export interface Tile {
  view: View
  kernel: Kernel
  first: number
  every: number
  canvas: Canvas
}

/** Draws a tile onto the canvas; the call that draws the last tile returns the picture as a PNG. */
export const drawTile = task<Tile, Uint8Array<ArrayBuffer> | undefined>('mandelbrot.tile', {
  join: (left, right) => left ?? right,
})
