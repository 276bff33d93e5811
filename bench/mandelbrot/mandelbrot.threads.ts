import type { Pool } from '@offloop/workpool/pool'
import { detachedContext } from '@offloop/workpool/task'
import { drawRows } from '../../src/features/mandelbrot/compute.ts'
import {
  type Canvas,
  drawTile,
  type Tile,
  type View,
} from '../../src/features/mandelbrot/contract.ts'
import { atLeast } from '../support/bench.ts'
import { inTurns, timeMs } from '../support/in-turns.ts'
import { machine } from '../support/machine.ts'
import { median, medianRatio } from '../support/statistics.ts'
import { type Measure, openCompute } from '../threads/measure.ts'

const VIEW: View = { width: 1_024, height: 1_024, iterations: 200, x: -0.6, y: 0, scale: 3 }
const THREAD = new URL('../../src/thread.ts', import.meta.url)
const SETTINGS = { view: VIEW, tiles: 128, rounds: 31, threads: machine.cores } as const

/**
 * The same picture by a loop in TypeScript and by one compiled ahead, on one thread and on all. No
 * PNG is made of it.
 */
export const measure: Measure = async (started) => {
  const oneThread = started.use(await openCompute(1, { entry: THREAD }))
  const allThreads = started.use(await openCompute(SETTINGS.threads, { entry: THREAD }))
  const canvas = {
    pixels: allThreads.share(Uint8Array, VIEW.width * VIEW.height),
    missing: allThreads.share(Int32Array, 1),
  }
  const inPlace = async () => {
    for (const tile of tilesOf('typescript', canvas)) drawRows(tile, detachedContext)
  }
  const on = (compute: Pool, kernel: Tile['kernel']) => async () => {
    await compute.map(drawTile, tilesOf(kernel, canvas)).reduce(undefined)
  }
  await inPlace()
  const expected = canvas.pixels.slice()

  const ms = await inTurns(
    SETTINGS.rounds,
    {
      'TypeScript, on the event loop': inPlace,
      'TypeScript, one thread': on(oneThread, 'typescript'),
      'TypeScript, all threads': on(allThreads, 'typescript'),
      'kernel, one thread': on(oneThread, 'wasm'),
      'kernel, all threads': on(allThreads, 'wasm'),
    },
    async (draw) => {
      canvas.pixels.fill(0)
      const took = await timeMs(draw)
      if (Buffer.compare(canvas.pixels, expected) !== 0) throw new Error('The pictures differ')
      return took
    },
  )

  const figures = Object.entries(ms).map(([name, all]) => ({ name, ms: median(all) }))
  return {
    title: `Mandelbrot, ${VIEW.width} × ${VIEW.height}, ${VIEW.iterations} iterations; medians of ${SETTINGS.rounds} rounds`,
    rows: figures,
    targets: [
      atLeast(
        'Mandelbrot, one thread: TypeScript ÷ kernel',
        medianRatio(ms['TypeScript, one thread'], ms['kernel, one thread']),
        1.7,
      ),
      atLeast(
        'Mandelbrot in TypeScript: one thread ÷ all',
        medianRatio(ms['TypeScript, one thread'], ms['TypeScript, all threads']),
        1.8,
      ),
      atLeast(
        'Mandelbrot by the kernel: one thread ÷ all',
        medianRatio(ms['kernel, one thread'], ms['kernel, all threads']),
        1.8,
      ),
    ],
    figures: { settings: SETTINGS, ways: figures },
  }
}

/**
 * One more than there are seem to be missing, so that none is the last, which would make a PNG of
 * the picture.
 */
function tilesOf(kernel: Tile['kernel'], canvas: Canvas): Tile[] {
  canvas.missing[0] = SETTINGS.tiles + 1
  return Array.from({ length: SETTINGS.tiles }, (_, first) => ({
    view: VIEW,
    kernel,
    first,
    every: SETTINGS.tiles,
    canvas,
  }))
}
