import type { Compute } from '@offloop/workpool/compute'
import type { MapOptions } from '@offloop/workpool/mapping'
import {
  type Canvas,
  drawTile,
  type Kernel,
  MAX_SIZE,
  type Png,
  type Tile,
  type View,
} from './contract.ts'

/**
 * Many times the number of threads, so that they end together; `map` sends several at once where
 * they are small.
 */
const TILES = 128

/** How many canvases, of 4 MB each, wait for the next picture. */
const MAX_SPARE = 4

/**
 * Draws pictures: each on all threads, in one piece of memory, of which the last of them makes a
 * PNG. That is one call, so that a service which stops does not refuse the second half of a picture
 * that it accepted.
 *
 * Shared memory is free again only when the event loop and every thread have collected their ends
 * of it, and threads that only compute have little reason to. New memory for every picture came to
 * 1.4 GB, so finished pictures' is used again.
 */
export class Painter {
  readonly #compute: Compute
  readonly #spare: Canvas[] = []

  constructor(compute: Compute) {
    this.#compute = compute
  }

  /** @throws AppError and TaskError as `compute.run` does; the signal's reason. */
  async draw(view: View, kernel: Kernel, options: MapOptions): Promise<Png> {
    const canvas = this.#spare.pop() ?? this.#newCanvas()
    const tiles = tilesOf(view, kernel, canvas)
    canvas.missing[0] = tiles.length
    const png = await this.#compute.map(drawTile, tiles, options).reduce(undefined)
    // Only now: threads may still draw on the canvas of a picture that was given up.
    if (this.#spare.length < MAX_SPARE) this.#spare.push(canvas)
    return png as Png
  }

  #newCanvas(): Canvas {
    return {
      pixels: this.#compute.share(Uint8Array, MAX_SIZE ** 2),
      missing: this.#compute.share(Int32Array, 1),
    }
  }
}

function tilesOf(view: View, kernel: Kernel, canvas: Canvas): Tile[] {
  const every = Math.min(TILES, view.height)
  return Array.from({ length: every }, (_, first) => ({ view, kernel, first, every, canvas }))
}
