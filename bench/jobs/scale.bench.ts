import { setTimeout as sleep } from 'node:timers/promises'
import { type RawBuilder, sql } from 'kysely'
import { createConnection } from 'mysql2/promise'
import { Database, type Db } from '../../src/db/database.ts'
import { transaction } from '../../src/db/transaction.ts'
import { atLeast, atMost, type Bench } from '../support/bench.ts'
import { orEnd } from '../support/child.ts'
import { openBenchDatabase } from '../support/database.ts'
import { timeMs } from '../support/in-turns.ts'
import type { Progress } from '../support/progress.ts'
import { add, median, medianRatio } from '../support/statistics.ts'
import { number } from '../support/table.ts'
import { enqueueAll, openJobs, POOL_SIZE, startWorker } from './open-jobs.ts'
import { handlersOn, nothing } from './work.ts'

const SIZES = { jobs: 10_000, rounds: 5, finished: 1_000_000, snapshotMs: 300_000 }
const QUICK = { jobs: 2_000, rounds: 1, finished: 20_000, snapshotMs: 10_000 }
const PROCESSES = [1, 2, 4]
const CONCURRENCY = 20
const DRAIN_TIMEOUT_MS = 120_000
const COPY_BATCH = 50_000
/** While the snapshot is open. */
const JOBS_PER_SECOND = 500
const ENQUEUE_EVERY_MS = 100

interface ScaleFigures {
  processes: { processes: number; perSecond: number; ofOne: number }[]
  finished: { rows: number; perSecond: number; ofEmpty: number; countMs: number }
  snapshot: { seconds: number; perSecond: number; ofBefore: number; warnings: number }
}

export const bench: Bench<ScaleFigures> = {
  description: 'jobs by 1, 2 and 4 processes, among a million, beside a snapshot; fifteen minutes',
  packages: ['mysql2', 'kysely'],

  async run({ started, progress, quick }) {
    const sizes = quick ? QUICK : SIZES
    const empty = started.use(await Queue.open())
    const full = started.use(await Queue.open())
    const processes = await measureProcesses(empty, sizes, progress)
    progress.next(`${sizes.finished} finished jobs are written`)
    await full.drain(1, sizes.jobs)
    await copyFinished(full.database.withSignal(), sizes.finished)
    const finished = await measureFinished(empty, full, sizes, progress)
    const snapshot = await measureSnapshot(empty, sizes, progress)
    return {
      tables: [
        { title: `${sizes.jobs} jobs that do nothing`, rows: processes },
        { title: 'Among finished jobs', rows: [finished] },
        { title: `With a snapshot open at ${JOBS_PER_SECOND} jobs/s`, rows: [snapshot] },
      ],
      figures: {
        versions: { database: empty.version },
        settings: { ...sizes, poolSize: POOL_SIZE, concurrency: CONCURRENCY },
        processes,
        finished,
        snapshot,
      },
      targets: [
        atLeast('among finished jobs, × of an empty table', finished.ofEmpty, 0.9),
        atMost('counting jobs by state, ms', finished.countMs, 100),
        {
          what: 'with a snapshot, × of before',
          wanted: '≥ 0.8, or a warning',
          measured: snapshot.ofBefore,
          met: snapshot.ofBefore >= 0.8 || snapshot.warnings > 0,
        },
      ],
    }
  },

  summarise: ({ processes: [one, two, four], finished, snapshot }) => [
    [
      'jobs that do nothing, 20 at once in each process',
      `one ${number(one?.perSecond, 0)}/s, two ${number(two?.perSecond, 0)}/s, four ${number(four?.perSecond, 0)}/s`,
      `among ${finished.rows} finished ones ${number(finished.ofEmpty, 2)} × of an empty table, after ${snapshot.seconds} s with an open snapshot ${number(snapshot.ofBefore, 2)} ×`,
    ],
  ],
}

/** A database of its own, whose jobs processes of their own run. */
class Queue implements AsyncDisposable {
  readonly version: string
  readonly url: string
  readonly database: Database
  readonly #resources: AsyncDisposableStack

  static async open(): Promise<Queue> {
    await using opening = new AsyncDisposableStack()
    const { url, version } = opening.use(await openBenchDatabase())
    const database = opening.use(await Database.open({ url, poolSize: POOL_SIZE }))
    return new Queue({ url, version, database }, opening.move())
  }

  private constructor(
    { url, version, database }: { url: string; version: string; database: Database },
    resources: AsyncDisposableStack,
  ) {
    this.url = url
    this.version = version
    this.database = database
    this.#resources = resources
  }

  /** Returns how many jobs the processes did in a second. */
  async drain(processes: number, jobs: number): Promise<number> {
    await enqueueAll(this.database, nothing, Array(jobs).fill(0))
    await using stack = new AsyncDisposableStack()
    const start = async () => stack.use(await startWorker(this.url, CONCURRENCY)).child
    const children = await Promise.all(Array.from({ length: processes }, start))
    const { promise: drained, resolve: end } = Promise.withResolvers<void>()
    const done = children.map(() => 0)
    for (const [index, child] of children.entries())
      child.on('message', (count) => {
        done[index] = Number(count)
        if (add(done) >= jobs) end()
      })
    const ms = await timeMs(() => {
      for (const child of children) child.send('start')
      return Promise.all(children.map((child) => orEnd(child, drained, DRAIN_TIMEOUT_MS)))
    })
    return jobs / (ms / 1_000)
  }

  [Symbol.asyncDispose]() {
    return this.#resources.disposeAsync()
  }
}

type Sizes = typeof SIZES

async function measureProcesses(queue: Queue, { jobs, rounds }: Sizes, progress: Progress) {
  const rates = PROCESSES.map((): number[] => [])
  for (let round = 1; round <= rounds; round++)
    for (const [index, processes] of PROCESSES.entries()) {
      progress.next(`${processes} processes, round ${round} of ${rounds}`)
      rates[index]?.push(await queue.drain(processes, jobs))
    }
  const [one = []] = rates
  return PROCESSES.map((processes, index) => {
    const all = rates[index] ?? []
    return { processes, perSecond: median(all), ofOne: medianRatio(all, one) }
  })
}

async function measureFinished(
  empty: Queue,
  full: Queue,
  { jobs, rounds, finished }: Sizes,
  progress: Progress,
) {
  const rates = { empty: [] as number[], full: [] as number[] }
  for (let round = 1; round <= rounds; round++) {
    progress.next(`among ${finished} finished jobs, round ${round} of ${rounds}`)
    rates.empty.push(await empty.drain(1, jobs))
    rates.full.push(await full.drain(1, jobs))
  }
  await using counting = openJobs(full.database, 0)
  const countMs = await timeMs(() => counting.count(full.database.withSignal()))
  const ofEmpty = medianRatio(rates.full, rates.empty)
  return { rows: finished, perSecond: median(rates.full), ofEmpty, countMs }
}

/** Copies finished jobs until there are `wanted`. */
async function copyFinished(db: Db, wanted: number): Promise<void> {
  const columns = await readColumns(db, 'job', 'id')
  const { rows } = await sql<{ jobs: number }>`select count(*) as jobs from job`.execute(db)
  for (let jobs = Number(rows[0]?.jobs), copied = 0; jobs < wanted; jobs += copied) {
    copied = Math.min(jobs, wanted - jobs, COPY_BATCH)
    await sql`
      insert into job (id, ${sql.join(columns)})
      select uuid(), ${sql.join(columns)} from job where state = 'succeeded' limit ${copied}
    `.execute(db)
  }
  const attempt = await readColumns(db, 'job_attempt', 'job_id')
  const attempts = sql`
    insert into job_attempt (job_id, ${sql.join(attempt)})
    select job.id, ${sql.join(attempt.map((column) => sql`sample.${column}`))}
    from job left join job_attempt as own on own.job_id = job.id
    cross join (select * from job_attempt limit 1) as sample
    where own.job_id is null
  `
  // Otherwise it locks each row that it reads.
  await transaction(db, (trx) => attempts.execute(trx), 'read committed')
}

async function readColumns(db: Db, table: string, key: string): Promise<RawBuilder<unknown>[]> {
  const { rows } = await sql<{ name: string }>`
    select column_name as name from information_schema.columns
    where table_schema = database() and table_name = ${table} and column_name <> ${key}
      and coalesce(generation_expression, '') = ''
  `.execute(db)
  return rows.map(({ name }) => sql`${sql.ref(name)}`)
}

/** An open snapshot keeps old row versions, which claims then pass. */
async function measureSnapshot(queue: Queue, sizes: Sizes, progress: Progress) {
  const { jobs, rounds, snapshotMs } = sizes
  const measure = async (what: string) => {
    const rates: number[] = []
    for (let round = 1; round <= rounds; round++) {
      progress.next(`${what} a snapshot, round ${round} of ${rounds}`)
      rates.push(await queue.drain(1, jobs))
    }
    return median(rates)
  }
  const before = await measure('before')
  await using stack = new AsyncDisposableStack()
  const snapshot = stack.adopt(await createConnection({ uri: queue.url }), (connection) =>
    connection.end(),
  )
  await snapshot.query('start transaction with consistent snapshot')
  progress.next(`${JOBS_PER_SECOND} jobs/s beside a snapshot`, snapshotMs)
  const warnings = await runSteadily(queue.database, snapshotMs)
  const perSecond = await measure('with')
  return { seconds: snapshotMs / 1_000, perSecond, ofBefore: perSecond / before, warnings }
}

/** Returns how many warnings were logged. */
async function runSteadily(database: Database, ms: number): Promise<number> {
  let warnings = 0
  const log = { info: () => {}, error: () => {}, warn: () => void warnings++ }
  await using jobs = openJobs(database, CONCURRENCY, { log })
  jobs.start({ handlers: handlersOn(database), schedules: [] })
  const startedAt = performance.now()
  for (let enqueued = 0; performance.now() - startedAt < ms; ) {
    const due = Math.floor(((performance.now() - startedAt) / 1_000) * JOBS_PER_SECOND)
    await transaction(database.withSignal(), async (trx) => {
      for (let index = enqueued; index < due; index++) await jobs.enqueue(trx, nothing, index)
    })
    enqueued = due
    await sleep(ENQUEUE_EVERY_MS)
  }
  return warnings
}
