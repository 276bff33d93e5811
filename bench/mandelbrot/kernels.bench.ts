import { detachedContext } from '@offloop/workpool/task'
import { drawRows } from '../../src/features/mandelbrot/compute.ts'
import type { Canvas, Tile, View } from '../../src/features/mandelbrot/contract.ts'
import { escapeRow, escapeRowWasm } from '../../src/features/mandelbrot/escape-row.ts'
import type { Bench } from '../support/bench.ts'
import { inTurns, timeMs } from '../support/in-turns.ts'
import { median } from '../support/statistics.ts'
import { number } from '../support/table.ts'

const SIZE = 1_024
const ROUNDS = 15

const view: View = { width: SIZE, height: SIZE, iterations: 200, x: -0.6, y: 0, scale: 3 }
const canvas: Canvas = {
  pixels: new Uint8Array(new SharedArrayBuffer(SIZE * SIZE)),
  missing: new Int32Array(1),
}

interface KernelsFigures {
  ways: { name: string; typescriptMs: number; kernelMs: number }[]
}

export const bench: Bench<KernelsFigures> = {
  description: 'the Mandelbrot set on one thread: in TypeScript, and compiled ahead; ten seconds',
  packages: [],

  async run() {
    if (!escapeRowWasm) throw new Error('The kernel is not built')
    const ways = [
      await compare('the loop alone', drawRowsBy(escapeRow), drawRowsBy(escapeRowWasm)),
      await compare('with the colours', drawTileBy('typescript'), drawTileBy('wasm')),
    ]
    return { tables: [{ title: `${SIZE} × ${SIZE} pixels`, rows: ways }], figures: { ways } }
  },

  summarise: ({ ways }) =>
    ways.map(({ name, typescriptMs, kernelMs }) => [
      `Mandelbrot on one thread, ${name}: compiled ahead`,
      `${number(kernelMs, 0)} ms`,
      `TypeScript ${number(typescriptMs, 0)} ms`,
    ]),
}

function drawRowsBy(escapes: typeof escapeRow) {
  const step = view.scale / SIZE
  return () => {
    for (let row = 0; row < SIZE; row++)
      escapes({
        left: view.x - 1.5,
        step,
        imaginary: 1.5 - row * step,
        width: SIZE,
        iterations: view.iterations,
      })
  }
}

const drawTileBy = (kernel: Tile['kernel']) => () =>
  drawRows({ view, kernel, first: 0, every: 1, canvas }, detachedContext)

async function compare(name: string, typescript: () => void, kernel: () => void) {
  const times = await inTurns(ROUNDS, { typescript, kernel }, timeMs)
  return { name, typescriptMs: median(times.typescript), kernelMs: median(times.kernel) }
}
