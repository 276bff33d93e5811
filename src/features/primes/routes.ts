import { performance } from 'node:perf_hooks'
import { z } from '@hono/zod-openapi'
import { detachedContext } from '@offloop/workpool/task'
import { AppError } from '../../errors.ts'
import { type Deps, feature } from '../../feature.ts'
import { taskOptions } from '../../http/context.ts'
import { integerParameter, withDefault } from '../../http/params.ts'
import { createRouter, json } from '../../http/router.ts'
import { countPrimesIn } from './compute.ts'
import { countPrimes } from './contract.ts'

const Bound = integerParameter(0, 50_000_000)
const Mode = z.enum(['offload', 'inline'])

const Query = z
  .strictObject({
    from: withDefault(Bound, 0),
    to: Bound.openapi({ example: 1_400_000 }),
    mode: Mode.default('offload'),
    distributed: z
      .stringbool({ truthy: ['true'], falsy: ['false'], error: 'Must be true or false' })
      .default(false)
      .openapi({ type: 'boolean', default: false }),
  })
  .refine(({ from, to }) => from <= to, { path: ['to'], message: 'Must not be below from' })
  .refine(({ mode, distributed }) => mode === 'offload' || !distributed, {
    path: ['distributed'],
    message: 'Must be false with mode=inline, which runs on the event loop',
  })

const PrimeCount = z
  .object({ from: z.int(), to: z.int(), count: z.int(), mode: Mode, elapsedMs: z.int() })
  .openapi('PrimeCount')

/** CPU work on worker threads, or on the event loop to see what that costs. */
export const primes = feature({
  name: 'primes',
  path: '/v1/primes',
  routes: primeRoutes,
  suggestions: [{ curl: "'$URL/v1/primes?to=1400000'" }],
  example: true,
})

function primeRoutes({ compute, config }: Deps) {
  const router = createRouter()

  router.openapi({
    method: 'get',
    path: '/',
    operationId: 'countPrimes',
    access: 'public',
    limit: 'heavy',
    summary: 'Count the primes p with from ≤ p < to',
    description: 'With `distributed=true`, the threads of other processes take part.',
    request: { query: Query },
    responses: {
      200: json(PrimeCount, 'Counted'),
      403: { description: '`mode=inline` is not allowed here' },
    },
    handler: async (c) => {
      const { mode, distributed, ...range } = c.req.valid('query')
      if (mode === 'inline' && !config.demoInline)
        throw new AppError(
          'forbidden',
          'mode=inline blocks the event loop: set DEMO_INLINE=true to allow it',
        )
      const startedAt = performance.now()
      const count =
        mode === 'inline'
          ? countPrimesIn(range, detachedContext)
          : await compute.map(countPrimes, [range], { ...taskOptions(c), distributed }).reduce(0)
      const elapsedMs = Math.round(performance.now() - startedAt)
      return c.json({ ...range, count, mode, elapsedMs }, 200)
    },
  })

  return router
}
