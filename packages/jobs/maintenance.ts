import { performance } from 'node:perf_hooks'
import { Cron } from 'croner'
import { sql } from 'kysely'
import { toNewJob } from './enqueue.ts'
import { handle, type JobChange, type JobSchedule, job, schedule } from './job.ts'
import { type Log, Loop, type Timing } from './loop.ts'
import { type JobStore, MAINTENANCE_BATCH } from './store.ts'
import { type Db, type Trx, typed } from './tables.ts'

const SLOT_BATCH = 1_000

export interface MaintenanceOptions {
  store: JobStore
  log: Log
  timing: Timing
  schedules: readonly JobSchedule[]
  /** Opens a handle for one statement or transaction. */
  open(): Db
  transaction<T>(db: Db, story: (trx: Trx) => Promise<T>, isolation: 'read committed'): Promise<T>
  /** Enqueues the job of a schedule, in the transaction that marks its slot as fired. */
  enqueue(trx: Trx, schedule: JobSchedule): Promise<unknown>
  onChange(changes: readonly JobChange[]): void
}

/**
 * Promotes due jobs, rescues orphaned ones, and fires schedules. Every process does so; the rows'
 * locks and the slots' keys ensure that each thing is done once.
 */
export class Maintenance {
  readonly #options: MaintenanceOptions
  readonly #loop: Loop
  readonly #schedules: { schedule: JobSchedule; cron: Cron; nextSlot: number }[]
  #lastAt = Number.NEGATIVE_INFINITY
  #rescuesFrom = 0

  /**
   * @throws Error for a cron expression that is none or never fires, or two schedules of one name;
   * TypeError or JobError `too_large` for an input that no job can have.
   */
  constructor(options: MaintenanceOptions) {
    const { log, timing, schedules } = options
    const names = schedules.map(({ name }) => name)
    const twice = names.find((name, index) => names.indexOf(name) !== index)
    if (twice) throw new Error(`Two schedules have one name: ${twice}`)
    // Checked here: a schedule that fails later would keep those after it from being fired.
    for (const { job, input } of schedules) toNewJob(job, input as never)
    this.#options = options
    this.#schedules = schedules.map((entry) => ({
      schedule: entry,
      cron: toCron(entry),
      nextSlot: 0,
    }))
    this.#loop = new Loop({
      name: 'maintenance',
      log,
      restMs: timing.pollMs,
      maxBackoffMs: timing.maxBackoffMs,
      runOnce: () => this.runOnce(),
    })
  }

  start(): void {
    this.#loop.start()
  }

  stop(): Promise<void> {
    return this.#loop.stop()
  }

  /** Resolves with whether there may be more to do. */
  async runOnce(): Promise<boolean> {
    const { store, onChange } = this.#options
    const promoted = await store.promote()
    onChange(promoted)
    const rescued = this.#mayRescue() ? await store.rescue() : []
    onChange(rescued)
    await this.fireSchedules()
    return Math.max(promoted.length, rescued.length) >= MAINTENANCE_BATCH
  }

  /**
   * Fires each slot once: a row with the slot as its key says that it was fired. Slots missed while
   * no process ran are made up for by firing the last of them.
   */
  async fireSchedules(): Promise<void> {
    const { open, transaction } = this.#options
    const now = await readClock(open())
    for (const entry of this.#schedules) {
      if (now.getTime() < entry.nextSlot) continue
      const slot = findLastSlot(entry.cron, now)
      const fire = (trx: Trx) => this.#fireSlot(trx, entry.schedule, slot as Date)
      if (slot) await transaction(open(), fire, 'read committed')
      entry.nextSlot = entry.cron.nextRun(now)?.getTime() ?? Number.POSITIVE_INFINITY
    }
  }

  /** A schedule without slots is new, not late: its first slot is the next one. */
  async #fireSlot(trx: Trx, entry: JobSchedule, slot: Date): Promise<void> {
    const newest = await findNewestSlot(trx, entry.name)
    if (newest && newest >= slot) return
    const { numInsertedOrUpdatedRows = 0n } = await typed(trx)
      .insertInto('job_slot')
      .ignore()
      .values({ schedule: entry.name, slot })
      .executeTakeFirstOrThrow()
    if (newest && numInsertedOrUpdatedRows > 0n) await this.#options.enqueue(trx, entry)
  }

  /**
   * After an outage all leases have expired, though no worker died: each gets the time to end its
   * pause and renew. The same after this process was away itself, or has just started.
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

const pruneJobs = job<null>('jobs.prune')

/** Every hour: deletes finished jobs that were kept for long enough, and old slots. */
export const pruning = (store: JobStore, open: () => Db) => ({
  schedule: schedule('jobs.prune', '17 * * * *', pruneJobs, null),
  handler: handle(pruneJobs, async (_, { signal }) => {
    while (!signal.aborted && (await store.prune()) > 0);
    await pruneSlots(open, signal)
  }),
})

/** Deletes slots that were fired a week ago, except for the newest of each schedule. */
export async function pruneSlots(open: () => Db, signal?: AbortSignal): Promise<void> {
  const newest = await typed(open())
    .selectFrom('job_slot')
    .select(['schedule', ({ fn }) => fn.max('slot').as('slot')])
    .groupBy('schedule')
    .execute()
  for (const { schedule, slot } of newest)
    while (!signal?.aborted && (await deleteSlots(open(), schedule, slot)) === SLOT_BATCH);
}

async function deleteSlots(db: Db, name: string, before: Date): Promise<number> {
  const { numAffectedRows = 0n } = await sql`
    delete from job_slot where schedule = ${name} and slot < ${before} and slot < now() - interval 7 day
    order by schedule, slot limit ${sql.lit(SLOT_BATCH)}
  `.execute(db)
  return Number(numAffectedRows)
}

/** Five fields, or six with seconds, or `@daily`: one with a year would end to fire one day. */
const RECURRING = /^\s*(@\w+|\S+(\s+\S+){4,5})\s*$/

function toCron({ name, cron: expression }: JobSchedule): Cron {
  if (!RECURRING.test(expression))
    throw new Error(
      `The schedule ${name} needs five fields, or six with seconds: ${JSON.stringify(expression)} has others`,
    )
  // An offset: the first look-up of a time zone in Intl takes up to 0.2 s.
  const cron = new Cron(expression, { utcOffset: 0 })
  if (cron.nextRun()) return cron
  // It would cost a search through years each time.
  throw new Error(`The schedule ${name} never fires: no date matches ${JSON.stringify(expression)}`)
}

/** The last slot that is not after `now`: croner returns those before a time, in seconds. */
function findLastSlot(cron: Cron, now: Date): Date | undefined {
  return cron.previousRuns(1, new Date(Math.floor(now.getTime() / 1_000) * 1_000 + 1_000))[0]
}

async function findNewestSlot(trx: Trx, name: string): Promise<Date | undefined> {
  const query = typed(trx).selectFrom('job_slot').select('slot').where('schedule', '=', name)
  return (await query.orderBy('slot', 'desc').limit(1).executeTakeFirst())?.slot
}

async function readClock(db: Db): Promise<Date> {
  const { rows } = await sql<{ now: Date }>`select now(3) as now`.execute(db)
  return rows[0]?.now as Date
}
