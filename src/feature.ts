import type { JobHandler, JobSchedule } from '@offloop/jobs/job'
import type { Jobs } from '@offloop/jobs/jobs'
import type { Pool } from '@offloop/workpool/pool'
import type { Hono } from 'hono'
import type { Config } from './config.ts'
import type { Database, Db } from './db/database.ts'
import type { Env } from './http/context.ts'
import type { Log } from './log.ts'
import type { opsSample } from './ops/live-samples.ts'
import type { opsSpans } from './ops/live-spans.ts'
import type { Event, Listeners } from './realtime/event.ts'
import type { Realtime } from './realtime/realtime.ts'

/** What `main.ts` opens and features use. */
export interface Deps {
  config: Config
  database: Database
  compute: Pool
  jobs: Jobs
  realtime: Realtime
  log: Log
  /** Aborts when the service begins to stop. */
  stopping: AbortSignal
}

/**
 * A part of the service as data: `createApp` and `main.ts` derive everything that they do for it
 * from here, so that a feature is added to `features/index.ts` and nowhere else.
 */
export interface Feature {
  name: string
  /** Where its routes are mounted, such as `/v1/orders`. */
  path: string
  /** Builds its router, and starts nothing: what runs is for `start`. */
  routes(deps: Deps): Hono<Env>
  /** How its jobs are done: `[handle(sendReceipt, (input, context) => …)]`. */
  jobs?(deps: Deps): readonly JobHandler[]
  /** The jobs that a cron expression enqueues. */
  schedules?: readonly JobSchedule[]
  /** What clients may subscribe to: names, or patterns such as `/^report:\d+$/`. */
  topics?: readonly (string | RegExp)[]
  /** What subscribers receive; `/docs` lists it. */
  events?: readonly Event[]
  /** Starts what runs beside requests, such as a feed, and returns the function that ends it. */
  start?(deps: Deps): () => void | Promise<void>
  /** Whether its requests use the database: while many wait for it, further ones are not begun. */
  usesDatabase?: boolean
  /** Whether POST to `path` takes large bodies, by `receiveUpload`, which has its own limits. */
  takesUploads?: boolean
  /** Fills empty tables for development, and returns how many rows it added. */
  seed?(db: Db): Promise<number>
  /** What `npm start` suggests to try: arguments of `curl`, in which `$URL` is the service's. */
  suggestions?: readonly string[]
  /** Whether `npm run eject` may remove it, together with these files of `migrations/`. */
  example?: true
  migrations?: readonly string[]
}

/** Declares a feature; the types of its events stay known. */
export const feature = <const Definition extends Feature>(definition: Definition): Definition =>
  definition

/**
 * What clients of these features may hear: `io(url) as Socket<ServerEvents<typeof features>,
 * ClientEvents>` is typed on both ends.
 */
export type ServerEvents<Features extends readonly Feature[]> = Listeners<
  EventsOf<Features[number]> | typeof opsSample | typeof opsSpans
> & { 'server.stopping': () => void }

type EventsOf<F> = F extends { events: readonly (infer E extends Event)[] } ? E : never
