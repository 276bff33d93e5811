import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { type RawBuilder, sql } from 'kysely'
import { Database, type Db } from '../../src/db/database.ts'
import { atLeast, atMost, type Bench } from '../support/bench.ts'
import { openBenchDatabase } from '../support/database.ts'
import { enqueueAll, POOL_SIZE, startWorker, type WorkerProcess } from './open-jobs.ts'
import { createEffects, effect } from './work.ts'

const JOBS = 10_000
const KILLS = 100
const QUICK = { jobs: 500, kills: 10 }
const PROCESSES = 4
const CONCURRENCY = 10
const MAX_JOB_MS = 1_000
/** Ten times as fast as in production, so that processes live long enough to rescue jobs. */
const TIMING = { leaseMs: 3_000, heartbeatMs: 1_000, maxBackoffMs: 500 }
const POLL_MS = 50
/** Without progress, jobs are stuck. */
const STUCK_MS = 60_000

interface KillsFigures {
  jobs: number
  kills: number
  lostAttempts: number
  /** Beyond one for each job. */
  repeatedRuns: number
  violations: Violations
}

/** How many jobs break each promise. */
interface Violations {
  lost: number
  stuck: number
  withoutEffect: number
  succeededTwice: number
  wrongHistory: number
  overlapping: number
  unclaimedRuns: number
}

export const bench: Bench<KillsFigures> = {
  description: 'whether jobs survive 100 kills of their processes; five minutes',
  packages: ['mysql2', 'kysely'],

  async run({ started, progress, quick }) {
    const { jobs, kills } = quick ? QUICK : { jobs: JOBS, kills: KILLS }
    const own = started.use(await openBenchDatabase())
    const database = started.use(await Database.open({ url: own.url, poolSize: POOL_SIZE }))
    const db = database.withSignal()
    await createEffects(db)
    const inputs = Array.from({ length: jobs }, () => ({ ms: Math.random() * MAX_JOB_MS }))
    await enqueueAll(database, effect, inputs)
    const workers = started.use(new Workers(own.url))
    await workers.startAll()
    for (let kill = 1; kill <= kills; kill++) {
      progress.next(`kill ${kill} of ${kills}`)
      await untilDone(db, (jobs * kill) / (kills + 1))
      await workers.killOne()
    }
    progress.next('the rest of the jobs')
    await untilDone(db, jobs)
    const violations = await findViolations(db, jobs)
    const lostAttempts = await count(db, sql`job_attempt where outcome = 'lost'`)
    const repeatedRuns = (await count(db, sql`bench_run`)) - (await count(db, sql`bench_effect`))
    const figures = { jobs, kills, lostAttempts, repeatedRuns, violations }
    return {
      tables: [
        { title: `${jobs} jobs, ${kills} kills of ${PROCESSES} processes`, rows: [figures] },
        { title: 'Jobs that break a promise', rows: [violations] },
      ],
      figures: {
        versions: { database: own.version },
        settings: { processes: PROCESSES, concurrency: CONCURRENCY, ...TIMING },
        ...figures,
      },
      targets: [
        ...Object.entries(violations).map(([name, found]) => atMost(name, found, 0)),
        // Otherwise the kills hit nothing.
        atLeast('attempts lost', lostAttempts, kills),
      ],
    }
  },

  summarise: ({ jobs, kills, lostAttempts, violations }) => [
    [
      `${jobs} jobs while their processes are killed ${kills} times`,
      `${Object.values(violations).reduce((sum, found) => sum + found)} lost, stuck or done twice`,
      `${lostAttempts} attempts ended with their process`,
    ],
  ],
}

class Workers implements AsyncDisposable {
  readonly #databaseUrl: string
  readonly #running = new Set<WorkerProcess>()
  readonly #starting: Promise<void>[] = []

  constructor(databaseUrl: string) {
    this.#databaseUrl = databaseUrl
  }

  async startAll(): Promise<void> {
    await Promise.all(Array.from({ length: PROCESSES }, () => this.#start()))
  }

  /** Another one starts in its place, as under an orchestrator. */
  async killOne(): Promise<void> {
    if (this.#running.size === 0) await Promise.race(this.#starting)
    const running = [...this.#running]
    const victim = running[Math.floor(Math.random() * running.length)] as WorkerProcess
    this.#running.delete(victim)
    victim.child.kill('SIGKILL')
    await once(victim.child, 'exit')
    this.#starting.push(this.#start())
  }

  async #start(): Promise<void> {
    const worker = await startWorker(this.#databaseUrl, CONCURRENCY, TIMING)
    worker.child.send('start')
    this.#running.add(worker)
  }

  async [Symbol.asyncDispose]() {
    await Promise.allSettled(this.#starting)
    await Promise.all([...this.#running].map((worker) => worker[Symbol.asyncDispose]()))
  }
}

/** Also returns if nothing has been done for a long time. */
async function untilDone(db: Db, wanted: number): Promise<void> {
  let [best, bestAt] = [0, performance.now()]
  while (best < wanted && performance.now() - bestAt < STUCK_MS) {
    const done = await count(db, sql`job where state = 'succeeded' and kind = ${effect.name}`)
    if (done > best) [best, bestAt] = [done, performance.now()]
    if (done < wanted) await sleep(POLL_MS)
  }
}

async function findViolations(db: Db, wanted: number): Promise<Violations> {
  const ofEffect = ['kind', '=', effect.name] as const
  const jobs = await db
    .selectFrom('job')
    .select(['id', 'state'])
    .where(...ofEffect)
    .execute()
  const attempts = await db
    .selectFrom('job_attempt')
    .innerJoin('job', 'job.id', 'job_attempt.job_id')
    .select(['job_id', 'job_attempt.fence', 'job_attempt.attempt', 'outcome'])
    .select(['job_attempt.started_at as startedAt', 'job_attempt.finished_at as finishedAt'])
    .where(...ofEffect)
    .orderBy('job_id')
    .orderBy('job_attempt.fence')
    .execute()
  const effects = await sql<{ job_id: string }>`select job_id from bench_effect`.execute(db)
  const runs = await sql<{ run: string }>`
    select concat(job_id, ' ', attempt) as run from bench_run
  `.execute(db)
  const histories = [...Map.groupBy(attempts, ({ job_id }) => job_id).values()]
  const effective = new Set(effects.rows.map(({ job_id }) => job_id))
  const claimed = new Set(attempts.map(({ job_id, attempt }) => `${job_id} ${attempt}`))
  return {
    lost: wanted - jobs.length,
    stuck: jobs.filter(({ state }) => state !== 'succeeded').length,
    withoutEffect: jobs.filter(({ id }) => !effective.has(id)).length,
    succeededTwice: histories.filter(
      (history) => history.filter(({ outcome }) => outcome === 'succeeded').length > 1,
    ).length,
    wrongHistory: histories.filter((history) => !history.every(isSound)).length,
    overlapping: histories.filter((history) => history.some(overlapsEarlier)).length,
    unclaimedRuns: runs.rows.filter(({ run }) => !claimed.has(run)).length,
  }
}

interface Attempt {
  fence: number
  attempt: number
  outcome: string | null
  startedAt: Date
  finishedAt: Date | null
}

/** Counted without a gap, and lost but for the last. */
const isSound = ({ fence, attempt, outcome }: Attempt, index: number, history: Attempt[]) =>
  fence === index + 1 &&
  attempt === index + 1 &&
  outcome === (fence === history.length ? 'succeeded' : 'lost')

const overlapsEarlier = ({ startedAt }: Attempt, index: number, history: Attempt[]) =>
  history.slice(0, index).some(({ finishedAt }) => finishedAt === null || finishedAt > startedAt)

async function count(db: Db, rows: RawBuilder<unknown>): Promise<number> {
  const { rows: found } = await sql<{
    count: number
  }>`select count(*) as count from ${rows}`.execute(db)
  return Number(found[0]?.count)
}
