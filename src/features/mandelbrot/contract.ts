import { task } from '../../names.ts'

/** In pixels. The kernel has memory for rows of twice that. */
export const MAX_SIZE = 2_048
export const MAX_ITERATIONS = 5_000

/** Which pixels and colours a view has is a matter of the code, too: a change there is a new version. */
export const DRAWING_VERSION = 1

/** What of the plane a picture shows, and how well. */
export interface View {
  width: number
  height: number
  /** How long a point has to escape; one that has not by then counts as one of the set. */
  iterations: number
  /** The point in the middle. */
  x: number
  y: number
  /** How much of the plane the longer side shows. */
  scale: number
}

/** Both draw the same picture. `wasm` is compiled ahead, and `typescript` takes its place where it is not built. */
export type Kernel = 'wasm' | 'typescript'

/** The rows from ≤ row < to of a picture: one thread's share of the work. */
export interface Tile {
  view: View
  kernel: Kernel
  from: number
  to: number
  /** The whole picture, one palette index a pixel, in memory that all threads share. */
  pixels: Uint8Array
}

export const drawTile = task<Tile, void>('mandelbrot.tile')

export interface Picture {
  width: number
  height: number
  pixels: Uint8Array
}

export const encodePicture = task<Picture, Uint8Array<ArrayBuffer>>('mandelbrot.encode')
