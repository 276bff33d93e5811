import { task } from '@offloop/workpool/task'

/** In pixels. The kernel has memory for rows of twice that. */
export const MAX_SIZE = 2_048
export const MAX_ITERATIONS = 5_000

/**
 * Which pixels and colours a view has is a matter of the code, too: a change there is a new
 * version.
 */
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

/**
 * Both draw the same picture. `wasm` is compiled ahead, and `typescript` takes its place where it
 * is not built.
 */
export type Kernel = 'wasm' | 'typescript'

/** A PNG. */
export type Png = Uint8Array<ArrayBuffer>

/** Memory that all threads share. */
export interface Canvas {
  /** One palette index a pixel. */
  pixels: Uint8Array
  /** One number: how many tiles are not drawn yet. */
  missing: Int32Array
}

/**
 * Some rows of a picture: the first, and from there every so many. Neighbouring rows would be the
 * natural tile, but those through the middle of the set cost many times what those at its edge do;
 * dealt out like cards, all tiles cost the same.
 */
export interface Tile {
  view: View
  kernel: Kernel
  first: number
  every: number
  canvas: Canvas
}

/** Draws a tile onto the canvas; whoever draws the last one gives the picture. */
export const drawTile = task<Tile, Png | undefined>('mandelbrot.tile', {
  join: (left, right) => left ?? right,
})
