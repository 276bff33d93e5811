import { implement, type TaskContext } from '@offloop/workpool/task'
import { drawTile, type Tile } from './contract.ts'
import { escapeRow, escapeRowWasm } from './escape-row.ts'
import { colourRow, encodePng } from './picture.ts'

implement(drawTile, (tile, context) => {
  drawRows(tile, context)
  // The countdown reaches 0 in one thread, which sees what the others drew before.
  if (Atomics.sub(tile.canvas.missing, 0, 1) > 1) return undefined
  const png = encodePng(tile.view, tile.canvas.pixels)
  return context.transfer(png, [png.buffer])
})

export function drawRows(
  { view, kernel, first, every, canvas: { pixels } }: Tile,
  context: TaskContext,
): void {
  const { width, height, iterations, x, y, scale } = view
  const iterate = (kernel === 'wasm' && escapeRowWasm) || escapeRow
  const step = scale / Math.max(width, height)
  const left = x - ((width - 1) / 2) * step
  for (let row = first; row < height; row += every) {
    context.throwIfCancelled()
    const imaginary = y + ((height - 1) / 2 - row) * step
    const escaped = iterate({ left, step, imaginary, width, iterations })
    colourRow(escaped, iterations, pixels.subarray(row * width, (row + 1) * width))
  }
}
