import { createRoute, z } from '@hono/zod-openapi'
import { type Deps, feature } from '../../feature.ts'
import { taskOptions } from '../../http/context.ts'
import { bodyTag, isFresh } from '../../http/etag.ts'
import { createRouter } from '../../http/router.ts'
import { integerParameter, numberParameter, withDefault } from '../../schemas.ts'
import { DRAWING_VERSION, MAX_ITERATIONS, MAX_SIZE, type View } from './contract.ts'
import { Painter } from './painter.ts'

/** For a day nobody need ask again: that long a new version of the drawing may take to be seen. */
const CACHE_CONTROL = 'public, max-age=86400'

/** One request's work on all threads, in memory that they share. */
export const mandelbrot = feature({
  name: 'mandelbrot',
  path: '/v1/mandelbrot.png',
  routes: mandelbrotRoutes,
})

function mandelbrotRoutes({ compute }: Deps) {
  const router = createRouter()
  const painter = new Painter(compute)

  router.openapi(draw, async (c) => {
    const { kernel, ...view } = c.req.valid('query')
    const headers = {
      'Content-Type': 'image/png',
      'Cache-Control': CACHE_CONTROL,
      ETag: tagOf(view),
    }
    if (isFresh(c.req.header('if-none-match'), headers.ETag))
      return new Response(null, { status: 304, headers }) as never
    const png = await painter.draw(view, kernel, taskOptions(c))
    return new Response(png, { headers }) as never
  })

  return router
}

/**
 * Known before anything is drawn, since a picture is a function of its view. The same pixels make
 * other bytes where zlib is another one, which it is on each kind of processor; not so with another
 * kernel.
 */
const tagOf = ({ width, height, iterations, x, y, scale }: View) =>
  bodyTag(
    JSON.stringify([
      DRAWING_VERSION,
      process.versions.zlib,
      process.arch,
      width,
      height,
      iterations,
      x,
      y,
      scale,
    ]),
  )

const Size = integerParameter(1, MAX_SIZE)

/** Beyond 2 in any direction there is nothing to see. */
const Coordinate = numberParameter(-4, 4)

const Query = z.strictObject({
  width: withDefault(Size, 960),
  height: withDefault(Size, 640),
  iterations: withDefault(integerParameter(1, MAX_ITERATIONS), 500),
  x: withDefault(Coordinate, -0.65),
  y: withDefault(Coordinate, 0),
  scale: withDefault(numberParameter(1e-12, 8), 3.6),
  kernel: z.enum(['wasm', 'typescript']).default('wasm'),
})

const draw = createRoute({
  method: 'get',
  path: '/',
  tags: ['mandelbrot'],
  operationId: 'drawMandelbrot',
  summary: 'Draw a part of the Mandelbrot set',
  description:
    '`scale` is how much of the plane the longer side shows, `x` and `y` the point in the middle.',
  request: { query: Query },
  responses: {
    200: {
      description: 'Drawn',
      content: { 'image/png': { schema: z.string().openapi({ format: 'binary' }) } },
    },
    304: { description: 'The client has it already' },
  },
})
