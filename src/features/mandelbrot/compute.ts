import { implement } from '../../compute/implement.ts'
import { PALETTE } from './colours.ts'
import { drawTile, encodePicture } from './contract.ts'
import { encodePng } from './png.ts'
import { drawRows } from './tile.ts'

implement(drawTile, drawRows)
implement(encodePicture, (picture, context) => {
  const png = encodePng(picture, PALETTE)
  return context.transfer(png, [png.buffer])
})
