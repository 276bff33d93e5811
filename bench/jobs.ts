import { handle, job } from '@offloop/jobs/job'
import { Jobs } from '@offloop/jobs/jobs'
import { pino } from 'pino'
import { Database } from '../src/db/database.ts'
import { transaction } from '../src/db/transaction.ts'
import { align, number } from './align.ts'
import { openBenchDatabase } from './database.ts'
import { machine, versionsOf } from './machine.ts'
import { median } from './statistics.ts'
import { writeResultJson } from './write-result.ts'

/**
 * `npm run bench:jobs`: how fast one process claims and finishes jobs that do nothing, and how soon
 * it begins one.
 */
const JOBS = 10_000
const ROUNDS = 5
const SINGLE_JOBS = 200
const ENQUEUE_BATCH = 500
const POOL_SIZE = 10
const CONCURRENCIES = [5, 20]
const TARGET_PER_SECOND = 1_000
const KEEP_MS = 86_400_000

const nothing = job<number>('bench.nothing')

await using bench = await openBenchDatabase()
await using database = await Database.open({ url: bench.url, poolSize: POOL_SIZE })
console.log(
  `${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB · Node ${process.version} · ${bench.version}`,
)

const throughput = []
for (const concurrency of CONCURRENCIES) throughput.push(await measureThroughput(concurrency))
const latency = await measureLatency()
console.log(
  align([
    ['concurrency', 'jobs/s', 'slowest', 'fastest'],
    ...throughput.map(({ concurrency, perSecond, rounds }) => [
      String(concurrency),
      ...[perSecond, Math.min(...rounds), Math.max(...rounds)].map((rate) => number(rate, 0)),
    ]),
  ]),
)
console.log(
  `From the commit to the handler's start: ${number(latency.p50Ms, 1)} ms, median of ${SINGLE_JOBS}`,
)
writeResultJson('jobs.json', {
  measuredAt: new Date().toISOString(),
  machine,
  versions: { ...versionsOf(['mysql2', 'kysely']), database: bench.version },
  settings: {
    jobs: JOBS,
    rounds: ROUNDS,
    poolSize: POOL_SIZE,
    flushLogAtCommit: bench.flushLogAtCommit,
  },
  throughput,
  latency,
  targets: [{ name: 'jobs per second', limit: TARGET_PER_SECOND, value: throughput[0]?.perSecond }],
})

/** From the start of the loop on a full queue until the last end is written. */
async function measureThroughput(concurrency: number) {
  const rounds: number[] = []
  for (let round = 0; round < ROUNDS; round++) {
    await enqueueAll()
    rounds.push(await drain(concurrency))
  }
  return { concurrency, perSecond: median(rounds), rounds }
}

async function drain(concurrency: number): Promise<number> {
  await using jobs = openJobs(concurrency)
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
async function measureLatency() {
  await using jobs = openJobs(CONCURRENCIES[0] as number)
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

async function enqueueAll() {
  await using jobs = openJobs(0)
  for (let first = 0; first < JOBS; first += ENQUEUE_BATCH)
    await transaction(database.withSignal(), async (trx) => {
      for (let index = 0; index < ENQUEUE_BATCH; index++)
        await jobs.enqueue(trx, nothing, first + index)
    })
}

function openJobs(concurrency: number) {
  return new Jobs({ database, log: pino({ level: 'silent' }), concurrency, keepMs: KEEP_MS })
}
