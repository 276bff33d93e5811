import { UNCANCELLABLE } from '@offloop/workpool/implement'
import { drawRows } from '../src/features/mandelbrot/compute.ts'
import type { Canvas, Tile, View } from '../src/features/mandelbrot/contract.ts'
import { escapeRow, escapeRowWasm } from '../src/features/mandelbrot/escape-row.ts'
import { inTurns, millisecondsOf } from './compute/in-turns.ts'
import { median } from './statistics.ts'

/** `npm run bench:kernels`: what compiling ahead gains on one thread, for docs/kernels.md. */
const SIZE = 1_024
const ROUNDS = 15

const view: View = { width: SIZE, height: SIZE, iterations: 200, x: -0.6, y: 0, scale: 3 }
const canvas: Canvas = {
  pixels: new Uint8Array(new SharedArrayBuffer(SIZE * SIZE)),
  missing: new Int32Array(1),
}

if (!escapeRowWasm) throw new Error('The kernel is not built')
await compare('the loop alone', rows(escapeRow), rows(escapeRowWasm))
await compare('with the colours', tile('typescript'), tile('wasm'))

function rows(escapes: typeof escapeRow) {
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

function tile(kernel: Tile['kernel']) {
  return () => drawRows({ view, kernel, first: 0, every: 1, canvas }, UNCANCELLABLE)
}

async function compare(what: string, typescript: () => void, kernel: () => void) {
  const times = await inTurns(ROUNDS, { typescript, kernel }, millisecondsOf)
  const [before, after] = [median(times.typescript), median(times.kernel)]
  console.log(
    `${what}: TypeScript ${before.toFixed(1)} ms, kernel ${after.toFixed(1)} ms, ${(before / after).toFixed(2)} ×`,
  )
}
