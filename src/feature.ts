import type { JobHandler, JobSchedule } from '@offloop/jobs/job'
import type { Jobs } from '@offloop/jobs/jobs'
import type { Pool } from '@offloop/workpool/pool'
import type { Hono } from 'hono'
import type { Config } from './config.ts'
import type { Database, Db } from './db/database.ts'
import type { Env } from './http/context.ts'
import type { Log } from './log.ts'
import type { opsEvents } from './ops/live.ts'
import type { Metrics } from './ops/metrics.ts'
import type { Event, Listeners } from './realtime/event.ts'
import type { Realtime, Topic } from './realtime/realtime.ts'
import type { Scope, Subject } from './roles.ts'

/** What `main.ts` opens and features use. */
export interface Deps {
  config: Config
  database: Database
  compute: Pool
  jobs: Jobs
  realtime: Realtime
  log: Log
  metrics: Metrics
  stopping: AbortSignal
}

/** A topic whose `allows` gets the `Deps`, too. */
export interface FeatureTopic extends Omit<Topic, 'allows'> {
  allows?(deps: Deps, subject: Subject, topic: string): Promise<boolean>
}

type Stop = () => void | Promise<void>

/** A part of the service as data: to add one, change only `features/index.ts`. */
export interface Feature {
  name: string
  /** The prefix of its routes, such as `/v1/orders`. */
  path: string
  /** Starts nothing. */
  routes(deps: Deps): Hono<Env>
  jobs?(deps: Deps): readonly JobHandler[]
  schedules?: readonly JobSchedule[]
  /** `[{ name: 'orders', access: 'public' }]`. */
  topics?: readonly FeatureTopic[]
  /** What subscribers receive, for `/docs`. */
  events?: readonly Event[]
  /** Starts background work and returns what stops it. If it throws, the service does not start. */
  start?(deps: Deps): Stop | Promise<Stop>
  /** Whether its requests wait in the backlog under load. */
  usesDatabase?: boolean
  /** Whether POST to `path` uses `receiveUpload`. */
  takesUploads?: boolean
  /** Fills empty tables; returns the number of rows. */
  seed?(db: Db): Promise<number>
  /** What `npm start` suggests to try, with a key where it takes a scope; `$URL` is the service. */
  suggestions?: readonly { curl: string; scope?: Scope }[]
  /** Whether `npm run eject` removes it and its `migrations`. */
  example?: true
  migrations?: readonly string[]
}

/** Keeps the types of the events. */
export const feature = <const Definition extends Feature>(definition: Definition): Definition =>
  definition

/** A client's socket is `io(url) as Socket<ServerEvents<typeof features>, ClientEvents>`. */
export type ServerEvents<Features extends readonly Feature[]> = Listeners<
  EventsOf<Features[number]> | (typeof opsEvents)[number]
> & { 'server.stopping': () => void; 'server.resync': () => void }

type EventsOf<F> = F extends { events: readonly (infer E extends Event)[] } ? E : never
