import { implement } from '@offloop/workpool/implement'
import { PALETTE } from './colours.ts'
import { drawTile } from './contract.ts'
import { encodePng } from './png.ts'
import { drawRows } from './tile.ts'

implement(drawTile, (tile, context) => {
  drawRows(tile, context)
  // Counting down is atomic, so one thread gets to zero, and it sees what the others drew before
  // they counted.
  if (Atomics.sub(tile.canvas.missing, 0, 1) > 1) return undefined
  const png = encodePng(tile.view, tile.canvas.pixels, PALETTE)
  return context.transfer(png, [png.buffer])
})
