import { performance } from 'node:perf_hooks'
import { Cron } from 'croner'
import { sql } from 'kysely'
import { toNewJob } from './enqueue.ts'
import { findDuplicate, handle, type JobSchedule, job, schedule } from './job.ts'
import { Loop } from './loop.ts'
import { type JobStore, MAINTENANCE_BATCH } from './store.ts'
import { type Db, type JobState, type Trx, typed } from './tables.ts'
import type { WorkerOptions } from './worker.ts'

const SLOT_BATCH = 1_000
/** Five fields, six with seconds, or `@daily`: a year would end some day. */
const RECURRING = /^\s*(@\w+|\S+(\s+\S+){4,5})\s*$/

export interface MaintenanceOptions
  extends Pick<WorkerOptions, 'store' | 'log' | 'timing' | 'onChange'> {
  schedules: readonly JobSchedule[]
  /** Enqueues a schedule's job in the transaction that marks its slot as fired. */
  enqueue(trx: Trx, schedule: JobSchedule): Promise<{ id: string }>
}

interface LastRun {
  slot: Date
  jobId: string
  /** Null once the job was pruned. */
  state: JobState | null
}

/**
 * Promotes due jobs, rescues orphaned ones and fires schedules, in every process: row locks and
 * slot keys ensure that each is done once.
 */
export class Maintenance {
  readonly #options: MaintenanceOptions
  readonly loop: Loop
  readonly #entries: { schedule: JobSchedule; cron: Cron; nextSlot: number }[]
  #lastAt = Number.NEGATIVE_INFINITY
  #rescuesFrom = 0

  constructor(options: MaintenanceOptions) {
    const { log, timing, schedules } = options
    const twice = findDuplicate(schedules.map(({ name }) => name))
    if (twice) throw new Error(`Two schedules have one name: ${twice}`)
    // A schedule that fails later would block those after it.
    for (const { job, input } of schedules) toNewJob(job, input as never)
    this.#options = options
    this.#entries = schedules.map((entry) => ({
      schedule: entry,
      cron: toCron(entry),
      nextSlot: 0,
    }))
    const { pollMs: restMs, maxBackoffMs } = timing
    const runOnce = () => this.runOnce()
    this.loop = new Loop({ name: 'maintenance', log, restMs, maxBackoffMs, runOnce })
  }

  async runOnce(): Promise<boolean> {
    const { store, onChange } = this.#options
    const promoted = await store.promote()
    onChange(promoted)
    const rescued = this.#mayRescue() ? await store.rescue() : []
    onChange(rescued)
    await this.fireSchedules()
    return Math.max(promoted.length, rescued.length) >= MAINTENANCE_BATCH
  }

  /** Fires each slot once; of those missed while no process ran, the last. */
  async fireSchedules(): Promise<void> {
    const { store } = this.#options
    const now = await readClock(store.open(true))
    for (const entry of this.#entries) {
      if (now.getTime() < entry.nextSlot) continue
      const soon = new Date(Math.floor(now.getTime() / 1_000) * 1_000 + 1_000)
      const [slot] = entry.cron.previousRuns(1, soon)
      if (slot) await store.transaction(true, (trx) => this.#fireSlot(trx, entry.schedule, slot))
      entry.nextSlot = entry.cron.nextRun(now)?.getTime() ?? Number.POSITIVE_INFINITY
    }
  }

  /** A new schedule's first slot is the next one. */
  async #fireSlot(trx: Trx, entry: JobSchedule, slot: Date): Promise<void> {
    const slots = typed(trx)
      .selectFrom('job_slot')
      .select('slot')
      .where('schedule', '=', entry.name)
    const newest = await slots.orderBy('slot', 'desc').limit(1).executeTakeFirst()
    if (newest && newest.slot >= slot) return
    const insert = typed(trx).insertInto('job_slot').ignore().values({ schedule: entry.name, slot })
    const { numInsertedOrUpdatedRows = 0n } = await insert.executeTakeFirstOrThrow()
    if (!newest || numInsertedOrUpdatedRows === 0n) return
    const { id: job_id } = await this.#options.enqueue(trx, entry)
    const fired = typed(trx).updateTable('job_slot').set({ job_id })
    await fired.where('schedule', '=', entry.name).where('slot', '=', slot).execute()
  }

  async list(db: Db) {
    const { rows } = await sql<LastRun & { schedule: string }>`
      select fired.schedule, fired.slot, fired.job_id as jobId, job.state
      from (select schedule, max(slot) as slot from job_slot group by schedule) as newest
      join job_slot as fired on fired.schedule = newest.schedule and fired.slot = newest.slot
      left join job on job.id = fired.job_id
      where fired.job_id is not null
    `.execute(db)
    const runs = new Map(rows.map(({ schedule, ...run }) => [schedule, run]))
    return this.#entries.map(({ schedule: { name, job, cron: expression }, cron }) => ({
      name,
      kind: job.name,
      cron: expression,
      lastRun: runs.get(name) ?? null,
      nextRun: cron.nextRun() as Date,
    }))
  }

  /**
   * After an outage, a suspension or a start, leases may have expired though no worker died:
   * workers get time to renew.
   */
  #mayRescue(): boolean {
    const { pollMs, heartbeatMs, maxBackoffMs } = this.#options.timing
    const now = performance.now()
    if (now - this.#lastAt > heartbeatMs / 2 + pollMs)
      this.#rescuesFrom = now + heartbeatMs + maxBackoffMs
    this.#lastAt = now
    return now >= this.#rescuesFrom
  }
}

function toCron({ name, cron: expression }: JobSchedule): Cron {
  const text = JSON.stringify(expression)
  if (!RECURRING.test(expression))
    throw new Error(
      `The schedule ${name} needs five fields, or six with seconds: ${text} has others`,
    )
  // The first look-up of a time zone in Intl takes up to 0.2 s.
  const cron = new Cron(expression, { utcOffset: 0 })
  if (!cron.nextRun()) throw new Error(`The schedule ${name} never fires: no date matches ${text}`)
  return cron
}

async function readClock(db: Db): Promise<Date> {
  const { rows } = await sql<{ now: Date }>`select now(3) as now`.execute(db)
  return rows[0]?.now as Date
}

const pruneJobs = job<null>('jobs.prune')

/** Hourly: deletes old finished jobs and slots. */
export const pruning = (store: JobStore) => ({
  schedule: schedule('jobs.prune', '17 * * * *', pruneJobs, null),
  handler: handle(pruneJobs, async (_, { signal }) => {
    while (!signal.aborted && (await store.prune()) > 0);
    await pruneSlots(() => store.open(false), signal)
  }),
})

/** Deletes slots older than a week, except each schedule's newest. */
export async function pruneSlots(open: () => Db, signal?: AbortSignal): Promise<void> {
  const newest = await typed(open())
    .selectFrom('job_slot')
    .select(['schedule', ({ fn }) => fn.max('slot').as('slot')])
    .groupBy('schedule')
    .execute()
  const prune = async ({ schedule, slot }: { schedule: string; slot: Date }) => {
    const { numAffectedRows } = await sql`
      delete from job_slot
      where schedule = ${schedule} and slot < ${slot} and slot < now() - interval 7 day
      order by schedule, slot limit ${sql.lit(SLOT_BATCH)}
    `.execute(open())
    return Number(numAffectedRows)
  }
  for (const entry of newest) while (!signal?.aborted && (await prune(entry)) === SLOT_BATCH);
}
