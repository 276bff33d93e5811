import { task } from '@offloop/workpool/task'

/** In pixels. The kernel has memory for rows twice as long. */
export const MAX_SIZE = 2_048
export const MAX_ITERATIONS = 5_000

/** Part of the ETag: raise it when the same view is drawn differently. */
export const DRAWING_VERSION = 1

/** The part of the plane that a picture shows. */
export interface View {
  width: number
  height: number
  /** Points that escape later count as part of the set. */
  iterations: number
  /** The centre. */
  x: number
  y: number
  /** The length of the longer side in the plane. */
  scale: number
}

/** `typescript` is the fallback if the kernel is not built. */
export type Kernel = 'wasm' | 'typescript'

/** Memory that all threads share. */
export interface Canvas {
  /** One palette index per pixel. */
  pixels: Uint8Array
  /** One number: the tiles that are not drawn yet. */
  missing: Int32Array
}

/** Every `every`th row from `first` on, because the cost of blocks would differ widely. */
export interface Tile {
  view: View
  kernel: Kernel
  first: number
  every: number
  canvas: Canvas
}

/** The call that draws the last tile returns the picture as a PNG. */
export const drawTile = task<Tile, Uint8Array<ArrayBuffer> | undefined>('mandelbrot.tile', {
  join: (left, right) => left ?? right,
})
