import type { Compute } from '../compute/compute.ts'
import type { Database } from '../db/database.ts'
import type { Listeners } from '../names.ts'
import type { Realtime } from '../realtime/realtime.ts'
import { mandelbrotRoutes } from './mandelbrot/routes.ts'
import { primeRoutes } from './primes/routes.ts'
import { PRODUCTS, type productChanged } from './products/contract.ts'
import { productRoutes } from './products/routes.ts'

/** What `main.ts` opens and features use. */
export interface Deps {
  database: Database
  compute: Compute
  realtime: Realtime
  demoInline: boolean
}

/** The registry: every feature's routes, and where they are mounted. */
export const featureRoutes = (deps: Deps) =>
  ({
    '/v1/products': productRoutes(deps),
    '/v1/primes': primeRoutes(deps),
    '/v1/mandelbrot.png': mandelbrotRoutes(deps),
  }) as const

/** The topics that clients may subscribe to. */
export const topics = [PRODUCTS]

/** What clients may hear: `io(url) as Socket<ServerEvents, ClientEvents>` is typed on both ends. */
export type ServerEvents = Listeners<typeof productChanged> & { 'server.stopping': () => void }
