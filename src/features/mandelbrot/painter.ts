import type { Compute } from '../../compute/compute.ts'
import { drawTile, encodePicture, type Kernel, MAX_SIZE, type Tile, type View } from './contract.ts'

/** Few, so that the threads end together and a cancelled picture frees them soon; `map` puts cheap tiles together. */
const ROWS_PER_TILE = 4

/** How many canvases, of 4 MB each, wait for the next picture. */
const MAX_SPARE = 4

/**
 * Draws pictures: each on all threads, into one array, which one of them makes a PNG of.
 *
 * Shared memory is free again only when the event loop and every thread have collected their ends of it, and threads that
 * only compute have little reason to. New memory for every picture came to 1.4 GB, so finished pictures' is used again.
 */
export class Painter {
  readonly #compute: Compute
  readonly #spare: Uint8Array[] = []

  constructor(compute: Compute) {
    this.#compute = compute
  }

  /** @throws AppError as `compute.run` does; the signal's reason. */
  async draw(view: View, kernel: Kernel, signal: AbortSignal): Promise<Uint8Array<ArrayBuffer>> {
    const { width, height } = view
    const canvas = this.#spare.pop() ?? this.#compute.share(Uint8Array, MAX_SIZE ** 2)
    const pixels = canvas.subarray(0, width * height)
    await this.#compute.map(drawTile, [...tilesOf(view, kernel, pixels)], { signal })
    const png = await this.#compute.run(encodePicture, { width, height, pixels }, { signal })
    // Only now: threads may still draw on that of a picture that was given up.
    if (this.#spare.length < MAX_SPARE) this.#spare.push(canvas)
    return png
  }
}

function* tilesOf(view: View, kernel: Kernel, pixels: Tile['pixels']): Generator<Tile> {
  for (let from = 0; from < view.height; from += ROWS_PER_TILE)
    yield { view, kernel, from, to: Math.min(from + ROWS_PER_TILE, view.height), pixels }
}
