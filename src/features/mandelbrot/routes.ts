import { z } from '@hono/zod-openapi'
import type { Pool } from '@offloop/workpool/pool'
import { type Deps, feature } from '../../feature.ts'
import { taskOptions } from '../../http/context.ts'
import { bodyTag, isFresh } from '../../http/etag.ts'
import { createRouter } from '../../http/router.ts'
import { type Canvas, DRAWING_VERSION, drawTile, MAX_SIZE, Picture, type View } from './contract.ts'

/** Clients see a new drawing version after at most a day. */
const CACHE_CONTROL = 'public, max-age=86400'

/** Many per thread, so that threads finish together; `map` batches small ones. */
const TILES = 128

/** Of 4 MB each. */
const MAX_SPARE_CANVASES = 4

export const mandelbrot = feature({
  name: 'mandelbrot',
  path: '/v1/mandelbrot.png',
  routes: mandelbrotRoutes,
  example: true,
})

function mandelbrotRoutes({ compute }: Deps) {
  const router = createRouter()
  // Reused: shared memory is freed only once every thread has collected it.
  const spare: Canvas[] = []

  router.openapi({
    method: 'get',
    path: '/',
    operationId: 'drawMandelbrot',
    access: 'public',
    limit: 'heavy',
    summary: 'Draw a part of the Mandelbrot set',
    description:
      '`scale` is how much of the plane the longer side shows; `x` and `y` are its middle.',
    request: { query: Picture },
    responses: {
      200: {
        description: 'Drawn',
        content: { 'image/png': { schema: z.string().openapi({ format: 'binary' }) } },
      },
      304: { description: 'The client has it already' },
    },
    handler: async (c) => {
      const { kernel, ...view } = c.req.valid('query')
      const headers = {
        'Content-Type': 'image/png',
        'Cache-Control': CACHE_CONTROL,
        ETag: toTag(view),
      }
      if (isFresh(c.req.header('if-none-match'), headers.ETag)) return c.body(null, 304, headers)

      const canvas = spare.pop() ?? shareCanvas(compute)
      const count = Math.min(TILES, view.height)
      const tile = { view, kernel, every: count, canvas }
      const tiles = Array.from({ length: count }, (_, first) => ({ ...tile, first }))
      canvas.missing[0] = count
      const png = await compute.map(drawTile, tiles, taskOptions(c)).reduce(undefined)
      // Not after a failure: threads may still be drawing on the canvas.
      if (spare.length < MAX_SPARE_CANVASES) spare.push(canvas)
      return c.body(png ?? '', 200, headers)
    },
  })

  return router
}

const shareCanvas = (compute: Pool): Canvas => ({
  pixels: compute.share(Uint8Array, MAX_SIZE ** 2),
  missing: compute.share(Int32Array, 1),
})

/** The view determines the picture; the bytes also depend on zlib, which differs by processor. */
const toTag = (view: View) =>
  bodyTag(
    JSON.stringify([DRAWING_VERSION, process.versions.zlib, process.arch, Object.values(view)]),
  )
