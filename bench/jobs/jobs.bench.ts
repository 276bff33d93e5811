import { handle } from '@offloop/jobs/job'
import { Database } from '../../src/db/database.ts'
import { transaction } from '../../src/db/transaction.ts'
import { atLeast, type Bench } from '../support/bench.ts'
import { openBenchDatabase } from '../support/database.ts'
import { median } from '../support/statistics.ts'
import { number } from '../support/table.ts'
import { enqueueAll, openJobs, POOL_SIZE } from './open-jobs.ts'
import { nothing } from './work.ts'

const JOBS = 10_000
const ROUNDS = 5
const SINGLE_JOBS = 200
const CONCURRENCIES = [5, 20]
const TARGET_PER_SECOND = 1_000

interface JobsFigures {
  throughput: { concurrency: number; perSecond: number; rounds: number[] }[]
  latency: { p50Ms: number }
}

export const bench: Bench<JobsFigures> = {
  description: 'jobs that do nothing, claimed and completed by one process; half a minute',
  packages: ['mysql2', 'kysely'],

  async run({ started, progress }) {
    const own = started.use(await openBenchDatabase())
    const database = started.use(await Database.open({ url: own.url, poolSize: POOL_SIZE }))
    const throughput = []
    for (const concurrency of CONCURRENCIES) {
      progress.next(`${concurrency} jobs at once`)
      throughput.push(await measureThroughput(database, concurrency))
    }
    progress.next('single jobs')
    const latency = await measureLatency(database)
    return {
      tables: [
        { title: `${JOBS} jobs that do nothing`, rows: throughput },
        { title: "From the commit to the handler's start", rows: [latency] },
      ],
      figures: {
        versions: { database: own.version },
        settings: {
          jobs: JOBS,
          rounds: ROUNDS,
          poolSize: POOL_SIZE,
          flushLogAtCommit: own.flushLogAtCommit,
        },
        throughput,
        latency,
      },
      targets: [
        atLeast('jobs per second', throughput[0]?.perSecond ?? Number.NaN, TARGET_PER_SECOND),
      ],
    }
  },

  summarise: ({ throughput: [first, second], latency }) => [
    [
      `jobs that do nothing, one process, ${first?.concurrency} at once`,
      `${number(first?.perSecond, 0)}/s`,
      `${second?.concurrency} at once ${number(second?.perSecond, 0)}/s; started ${number(latency.p50Ms, 1)} ms after the commit`,
    ],
  ],
}

/** From the start of the loop on a full queue until the last end is written. */
async function measureThroughput(database: Database, concurrency: number) {
  const rounds: number[] = []
  for (let round = 0; round < ROUNDS; round++) {
    await enqueueAll(database, nothing, Array(JOBS).fill(0))
    rounds.push(await drain(database, concurrency))
  }
  return { concurrency, perSecond: median(rounds), rounds }
}

async function drain(database: Database, concurrency: number): Promise<number> {
  await using jobs = openJobs(database, concurrency)
  const { promise: drained, resolve } = Promise.withResolvers<void>()
  let done = 0
  jobs.onChange(({ kind, state }) => {
    if (kind === nothing.name && state === 'succeeded' && ++done === JOBS) resolve()
  })
  const startedAt = performance.now()
  jobs.start({ handlers: [handle(nothing, () => {})], schedules: [] })
  await drained
  return JOBS / ((performance.now() - startedAt) / 1_000)
}

/** Without rivals: the process that enqueues is the one that runs it. */
async function measureLatency(database: Database) {
  await using jobs = openJobs(database, CONCURRENCIES[0] ?? 1)
  let begin = () => {}
  jobs.start({ handlers: [handle(nothing, () => begin())], schedules: [] })
  const latenciesMs: number[] = []
  for (let index = 0; index < SINGLE_JOBS; index++) {
    const { promise: begun, resolve } = Promise.withResolvers<void>()
    begin = resolve
    await transaction(database.withSignal(), (trx) => jobs.enqueue(trx, nothing, index))
    const committedAt = performance.now()
    await begun
    latenciesMs.push(performance.now() - committedAt)
  }
  return { p50Ms: median(latenciesMs) }
}
