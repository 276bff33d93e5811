import { performance } from 'node:perf_hooks'
import { Cron } from 'croner'
import { sql } from 'kysely'
import { type EnqueueOptions, toNewJob } from './enqueue.ts'
import { JobError } from './errors.ts'
import { findDuplicate, type JobSchedule } from './job.ts'
import { Loop } from './loop.ts'
import { MAINTENANCE_BATCH } from './store.ts'
import { type Db, type JobState, type Trx, typed } from './tables.ts'
import type { WorkerOptions } from './worker.ts'

/** Without a year, which would end some day. */
const RECURRING = /^\s*(@\w+|\S+(\s+\S+){4,5})\s*$/

export interface MaintenanceOptions
  extends Pick<WorkerOptions, 'store' | 'log' | 'timing' | 'onChange' | 'observer'> {
  schedules: readonly JobSchedule[]
  /** Whether this process has places for the queue. */
  runs(queue: string): boolean
  /** In the transaction that marks the slot as fired. */
  enqueue(trx: Trx, schedule: JobSchedule, by?: RunBy): Promise<{ id: string }>
}

export type RunBy = Pick<EnqueueOptions, 'requestId' | 'subject'>

interface LastRun {
  slot: Date
  jobId: string
  /** Null once the job was pruned. */
  state: JobState | null
}

/**
 * Promotes due jobs, rescues lost ones and fires schedules, in every process: row locks and slot
 * keys ensure that each is done once.
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
    const { store, observer, onChange } = this.#options
    const promoted = await store.promote()
    onChange(promoted)
    const rescued = this.#mayRescue() ? await store.rescue() : []
    onChange(rescued)
    for (const { kind, state } of rescued) if (state === 'failed') observer?.failed(kind)
    await this.fireSchedules()
    return Math.max(promoted.length, rescued.length) >= MAINTENANCE_BATCH
  }

  /** Fires each slot once, where the job's queue is run; of missed ones, the last. */
  async fireSchedules(): Promise<void> {
    const { store, runs } = this.#options
    const entries = this.#entries.filter(({ schedule }) => runs(schedule.job.queue))
    if (entries.length === 0) return
    const now = await readClock(store.open(true))
    for (const entry of entries) {
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
    if ((newest && newest.slot >= slot) || (await isLeftOut(trx, entry.name, slot))) return
    const insert = typed(trx).insertInto('job_slot').ignore().values({ schedule: entry.name, slot })
    const { numInsertedOrUpdatedRows = 0n } = await insert.executeTakeFirstOrThrow()
    if (!newest || numInsertedOrUpdatedRows === 0n) return
    const { id: job_id } = await this.#options.enqueue(trx, entry)
    const fired = typed(trx).updateTable('job_slot').set({ job_id })
    await fired.where('schedule', '=', entry.name).where('slot', '=', slot).execute()
  }

  /** Its job counts as that of a slot: an unfinished one is returned. */
  async runNow(trx: Trx, name: string, by: RunBy): Promise<{ id: string }> {
    const { schedule } = this.#find(name)
    const { id } = await this.#options.enqueue(trx, schedule, by)
    await sql`
      insert into job_slot (schedule, slot, job_id) values (${name}, now(), ${id})
      on duplicate key update job_id = ${id}
    `.execute(trx)
    return { id }
  }

  /** Its slots are left out for good. */
  async pause(db: Db, name: string): Promise<void> {
    await sql`
      insert into job_schedule (schedule, is_paused)
      values (${this.#find(name).schedule.name}, true)
      on duplicate key update is_paused = true
    `.execute(db)
  }

  async resume(db: Db, name: string): Promise<void> {
    await sql`
      update job_schedule set is_paused = false, resumed_at = now(3)
      where schedule = ${this.#find(name).schedule.name} and is_paused
    `.execute(db)
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
    const paused = new Set(await findPaused(db))
    return this.#entries.map(({ schedule: { name, job, cron: expression, timeZone }, cron }) => ({
      name,
      kind: job.name,
      cron: expression,
      timeZone,
      isPaused: paused.has(name),
      lastRun: runs.get(name) ?? null,
      nextRun: paused.has(name) ? null : (cron.nextRun() as Date),
    }))
  }

  #find(name: string) {
    const entry = this.#entries.find(({ schedule }) => schedule.name === name)
    if (!entry) throw new JobError('not_found', `There is no schedule ${name}`)
    return entry
  }

  /** After an outage, a suspension or a start, workers get time to renew their leases. */
  #mayRescue(): boolean {
    const { pollMs, heartbeatMs, maxBackoffMs } = this.#options.timing
    const now = performance.now()
    if (now - this.#lastAt > heartbeatMs / 2 + pollMs)
      this.#rescuesFrom = now + heartbeatMs + maxBackoffMs
    this.#lastAt = now
    return now >= this.#rescuesFrom
  }
}

async function isLeftOut(trx: Trx, name: string, slot: Date): Promise<boolean> {
  const settings = typed(trx).selectFrom('job_schedule').select(['is_paused', 'resumed_at'])
  const found = await settings.where('schedule', '=', name).executeTakeFirst()
  return Boolean(found?.is_paused || (found?.resumed_at && found.resumed_at >= slot))
}

async function findPaused(db: Db): Promise<string[]> {
  const { rows } = await sql<{ schedule: string }>`
    select schedule from job_schedule where is_paused
  `.execute(db)
  return rows.map(({ schedule }) => schedule)
}

function toCron({ name, cron: expression, timeZone }: JobSchedule): Cron {
  const text = JSON.stringify(expression)
  if (!RECURRING.test(expression))
    throw new Error(
      `The schedule ${name} needs five fields, or six with seconds: ${text} has others`,
    )
  // Intl takes up to 0.2 s for its first time zone.
  const cron = new Cron(expression, timeZone === 'UTC' ? { utcOffset: 0 } : { timezone: timeZone })
  if (!cron.nextRun()) throw new Error(`The schedule ${name} never fires: no date matches ${text}`)
  return cron
}

async function readClock(db: Db): Promise<Date> {
  const { rows } = await sql<{ now: Date }>`select now(3) as now`.execute(db)
  return rows[0]?.now as Date
}
