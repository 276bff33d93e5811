import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { hostname } from 'node:os'
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { z } from '@hono/zod-openapi'
import type { Jobs } from '@offloop/jobs/jobs'
import { sql } from 'kysely'
import type { Config } from '../config.ts'
import type { Database, Db } from '../db/database.ts'
import { toTimestamp } from '../db/tables.ts'
import { getContext } from '../http/context.ts'
import { createRouter, json } from '../http/router.ts'
import type { Log } from '../log.ts'
import type { OpsSample } from './live-samples.ts'

declare module '../db/tables.ts' {
  interface Tables {
    process: {
      id: string
      role: Config['role']
      node: string
      url: string | null
      started_at: Date
      seen_at: Date
      sample: string | null
    }
  }
}

const RENEW_EVERY_MS = 5_000
/** Until there is a sample. */
const FIRST_RENEW_MS = 1_000
const PRUNE_EVERY_RENEWALS = 12
const RENEW_TIMEOUT_MS = 4_000
const STOP_TIMEOUT_MS = 1_000
const DEAD_AFTER_SECONDS = 15
const PRUNE_AFTER_SECONDS = 3_600
const MAX_LISTED = 64
const MAX_COUNTED = 1_000
/** The random part makes it unique among restarts, too. */
const RANDOM_BYTES = 4

const Count = z.int().min(0)

const Load = z.object({
  utilization: z.number().describe('Of the event loop, 0 to 1'),
  p99: z.number().describe('Delay of the event loop in ms'),
  cpu: z.number().describe('Cores in use'),
  rss: Count.describe('In bytes'),
  threads: Count,
  busyThreads: Count,
  queued: Count.describe('Tasks that wait for a thread'),
  jobs: Count.describe('Running jobs'),
  sockets: Count,
  requestsPerSecond: z.number(),
})

const ProcessSchema = z
  .object({
    id: z.string().describe('Host, process id and a random part; `worker` of its jobs'),
    role: z.enum(['all', 'web', 'worker']),
    node: z.string(),
    url: z.string().nullable().describe("Where it listens; a worker's is its ops port"),
    startedAt: z.iso.datetime(),
    seenAt: z.iso.datetime().describe('Renewed every 5 s'),
    isAlive: z.boolean().describe(`Whether it was seen in the last ${DEAD_AFTER_SECONDS} s`),
    load: Load.nullable().describe('When it was last seen; null in its first second'),
  })
  .openapi('Process')

const ProcessList = z
  .object({
    totals: z
      .object({
        alive: Count,
        dead: Count.describe('Killed in the last hour'),
        ...Load.omit({ utilization: true, p99: true }).shape,
      })
      .describe('Of those that are alive'),
    processes: z.array(ProcessSchema).describe(`At most ${MAX_LISTED}, dead ones last`),
    leftOut: Count.describe('Further processes'),
  })
  .openapi('ProcessList')

type Load = z.infer<typeof Load>
export type ProcessList = z.infer<typeof ProcessList>

interface ProcessesOptions {
  id: string
  role: Config['role']
  database: Pick<Database, 'withSignal'>
  samples: { all: readonly OpsSample[] }
  compute: { threads: number }
  jobs: Pick<Jobs, 'running'>
  log: Pick<Log, 'warn' | 'info'>
}

export const uniqueProcessId = () =>
  `${hostname().slice(0, 60)}:${process.pid}:${randomBytes(RANDOM_BYTES).toString('hex')}`

/** Keeps a row for this process, and lists all. */
export class Processes implements AsyncDisposable {
  readonly #options: ProcessesOptions
  readonly #stopping = new AbortController()
  #url: string | null = null
  #renewals = 0
  #fails = false
  #ended: Promise<void> | undefined
  #stopped: Promise<void> | undefined

  constructor(options: ProcessesOptions) {
    this.#options = options
  }

  start(url: string | undefined): void {
    this.#url = url ?? null
    this.#ended = this.#run()
  }

  /** Takes a second at most. @param crashed leaves the row, so that people see it. */
  stop(crashed = false): Promise<void> {
    this.#stopped ??= this.#stop(crashed)
    return this.#stopped
  }

  async [Symbol.asyncDispose]() {
    await this.stop()
  }

  async renew(): Promise<void> {
    const { database, log } = this.#options
    try {
      const signal = AbortSignal.timeout(RENEW_TIMEOUT_MS)
      const db = database.withSignal(signal, { reserved: true })
      await this.#write(db)
      if (this.#renewals++ % PRUNE_EVERY_RENEWALS === 0) await prune(db)
      if (this.#fails) log.info('This process is listed again')
      this.#fails = false
    } catch (error) {
      const text = 'Cannot renew the row of this process: others take it for dead meanwhile'
      if (!this.#fails) log.warn({ err: error }, text)
      this.#fails = true
    }
  }

  /** Those of the last hour; dead ones last. */
  async list(db: Db): Promise<ProcessList> {
    const rows = await db
      .selectFrom('process')
      .selectAll()
      .select(
        sql<number | string>`seen_at > now(3) - interval ${DEAD_AFTER_SECONDS} second`.as(
          'is_alive',
        ),
      )
      .orderBy('is_alive', 'desc')
      .orderBy('started_at')
      .orderBy('id')
      .limit(MAX_COUNTED)
      .execute()
    const processes = rows.map(({ started_at, seen_at, is_alive, sample, ...row }) => ({
      ...row,
      startedAt: toTimestamp(started_at),
      seenAt: toTimestamp(seen_at),
      // MySQL's comes as text.
      isAlive: Number(is_alive) === 1,
      load: sample === null ? null : (JSON.parse(sample) as Load),
    }))
    const alive = processes.filter(({ isAlive }) => isAlive)
    return {
      totals: {
        alive: alive.length,
        dead: processes.length - alive.length,
        ...sum(alive.flatMap(({ load }) => load ?? [])),
      },
      processes: processes.slice(0, MAX_LISTED),
      leftOut: Math.max(0, processes.length - MAX_LISTED),
    }
  }

  async #run() {
    const { signal } = this.#stopping
    while (!signal.aborted) {
      await this.renew()
      const ms = this.#options.samples.all.length > 0 ? RENEW_EVERY_MS : FIRST_RENEW_MS
      await sleep(ms, undefined, { signal, ref: false }).catch(() => undefined)
    }
  }

  async #write(db: Db) {
    const { id, role } = this.#options
    const upMs = Math.round(performance.now())
    const seen = { seen_at: sql<Date>`now(3)`, sample: this.#readLoad() }
    const row = { id, role, node: process.version, url: this.#url, ...seen }
    await db
      .insertInto('process')
      .values({ ...row, started_at: sql<Date>`now(3) - interval (${upMs} * 1000) microsecond` })
      .onDuplicateKeyUpdate(seen)
      .execute()
  }

  async #stop(crashed: boolean) {
    this.#stopping.abort()
    if (crashed || !this.#ended) return
    const { id, database, log } = this.#options
    const signal = AbortSignal.timeout(STOP_TIMEOUT_MS)
    // A renewal under way would bring the row back.
    await Promise.race([this.#ended, once(signal, 'abort')])
    const db = database.withSignal(signal, { reserved: true })
    const deleted = db.deleteFrom('process').where('id', '=', id).execute()
    const text = 'Cannot delete the row of this process: others take it for dead'
    await deleted.catch((error) => log.warn({ err: error }, text))
  }

  #readLoad(): string | null {
    const { samples, compute, jobs } = this.#options
    const sample = samples.all.at(-1)
    if (!sample) return null
    const { loop, cpu, memory, sockets, http } = sample
    const load: Load = {
      utilization: loop.utilization,
      p99: loop.p99,
      cpu,
      rss: memory.rss,
      threads: compute.threads,
      busyThreads: sample.compute.running,
      queued: sample.compute.queued,
      jobs: jobs.running,
      sockets,
      requestsPerSecond: http.requestsPerSecond,
    }
    return JSON.stringify(load)
  }
}

/** Few at a time: every process does it. */
async function prune(db: Db) {
  await db
    .deleteFrom('process')
    .where('seen_at', '<', sql<Date>`now(3) - interval ${PRUNE_AFTER_SECONDS} second`)
    .orderBy('seen_at')
    .limit(MAX_LISTED)
    .execute()
}

function sum(loads: readonly Load[]) {
  const total = (read: (load: Load) => number) =>
    loads.reduce((result, load) => result + read(load), 0)
  return {
    cpu: total(({ cpu }) => cpu),
    rss: total(({ rss }) => rss),
    threads: total(({ threads }) => threads),
    busyThreads: total(({ busyThreads }) => busyThreads),
    queued: total(({ queued }) => queued),
    jobs: total(({ jobs }) => jobs),
    sockets: total(({ sockets }) => sockets),
    requestsPerSecond: total(({ requestsPerSecond }) => requestsPerSecond),
  }
}

interface RouteParts {
  processes: Pick<Processes, 'list'>
  database: Pick<Database, 'withSignal'>
}

export function processRoutes({ processes, database }: RouteParts) {
  const router = createRouter()
  router.openapi({
    method: 'get',
    path: '/processes',
    operationId: 'listProcesses',
    access: 'operate',
    summary: 'List the processes of the service with their load',
    description:
      'All that use the database, wherever they run. One that was killed is listed for an hour; ' +
      'one that was stopped is not.',
    responses: { 200: json(ProcessList, 'Processes, and their load in sum') },
    handler: async (c) =>
      c.json(await processes.list(database.withSignal(getContext(c).signal)), 200, {
        'Cache-Control': 'no-store',
      }),
  })
  return router
}
