import type { TaskContext } from '@offloop/workpool/implement'
import { colourRow } from './colours.ts'
import type { Tile } from './contract.ts'
import { escapeRow } from './escape-row.ts'
import { escapeRowWasm } from './escape-row-wasm.ts'

/**
 * Draws its rows into the picture. The kernel works in memory of its own, and what is copied out of
 * it is not the row but its colours: so the kernel needs no shared memory, and the two ways differ
 * in one call.
 */
export function drawRows(
  { view, kernel, first, every, canvas: { pixels } }: Tile,
  context: TaskContext,
): void {
  const { width, height, iterations, x, y, scale } = view
  const escapes = (kernel === 'wasm' && escapeRowWasm) || escapeRow
  const step = scale / Math.max(width, height)
  const left = x - ((width - 1) / 2) * step
  for (let row = first; row < height; row += every) {
    context.throwIfCancelled()
    const imaginary = y + ((height - 1) / 2 - row) * step
    colourRow(
      escapes({ left, step, imaginary, width, iterations }),
      iterations,
      pixels.subarray(row * width, (row + 1) * width),
    )
  }
}
