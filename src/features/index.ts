import { join } from 'node:path'
import type { JobRegistry } from '@offloop/jobs/job'
import type { Jobs } from '@offloop/jobs/jobs'
import type { Compute } from '@offloop/workpool/compute'
import type { Config } from '../config.ts'
import type { Database } from '../db/database.ts'
import type { Log } from '../log.ts'
import { OPS, opsSample, opsSpans } from '../ops/contract.ts'
import type { Listeners } from '../realtime/event.ts'
import type { Realtime } from '../realtime/realtime.ts'
import { JOBS, jobChanged } from './jobs/contract.ts'
import { jobRoutes } from './jobs/routes.ts'
import { mandelbrotRoutes } from './mandelbrot/routes.ts'
import { primeRoutes } from './primes/routes.ts'
import { PRODUCTS, productChanged } from './products/contract.ts'
import { productRoutes } from './products/routes.ts'
import { REPORT_TOPIC, reportFinished, reportProgress } from './reports/contract.ts'
import { reportJobs } from './reports/jobs.ts'
import { reportRoutes } from './reports/routes.ts'
import { DirectoryStorage } from './reports/storage.ts'

/** What `main.ts` opens and features use. */
export interface Deps {
  database: Database
  compute: Compute
  jobs: Jobs
  realtime: Realtime
  log: Log
  /** Aborted once the service stops. */
  stopping: AbortSignal
  demoInline: boolean
  reports: Config['reports']
}

/** The registry: every feature's routes, and where they are mounted. */
export const featureRoutes = (deps: Deps) =>
  ({
    '/v1/products': productRoutes(deps),
    '/v1/primes': primeRoutes(deps),
    '/v1/mandelbrot.png': mandelbrotRoutes(deps),
    '/v1/reports': reportRoutes({ ...deps, storage: uploadsOf(deps) }),
    '/v1/jobs': jobRoutes(deps),
  }) as const

/** Paths whose requests use the database: while many wait for it, further ones are not begun. */
export const databasePaths = ['/v1/products', '/v1/reports', '/v1/jobs']

/**
 * Paths that take bodies beyond what others may: their routes read them by `receiveUpload`, which
 * has its own limits.
 */
export const uploads = ['/v1/reports']

/** Every feature's handlers of jobs, and what is to happen by the clock. */
export const featureJobs = (deps: Deps): JobRegistry => {
  const { directory, memoryMb } = deps.reports
  return reportJobs({
    ...deps,
    storage: uploadsOf(deps),
    spillDirectory: join(directory, 'spill'),
    memoryMb,
  })
}

const uploadsOf = ({ reports }: Deps) => new DirectoryStorage(join(reports.directory, 'uploads'))

/** The topics that clients may subscribe to. */
export const topics = [PRODUCTS, REPORT_TOPIC, JOBS, OPS]

/** What they hear there; `/docs` lists it. */
export const events = [
  productChanged,
  reportProgress,
  reportFinished,
  jobChanged,
  opsSample,
  opsSpans,
]

/** What clients may hear: `io(url) as Socket<ServerEvents, ClientEvents>` is typed on both ends. */
export type ServerEvents = Listeners<(typeof events)[number]> & {
  'server.stopping': () => void
}
