import { Cron } from 'croner'
import { sql, type Transaction } from 'kysely'
import type { Db } from '../../src/db/database.ts'
import type { Tables } from '../../src/db/tables.ts'
import { transaction } from '../../src/db/transaction.ts'
import { toNewJob } from './enqueue-options.ts'
import type { JobSchedule } from './job.ts'

const PRUNE_BATCH = 1_000

/** Puts the job of a schedule into the queue, in the transaction that marks its slot as fired. */
type EnqueueScheduled = (trx: Transaction<Tables>, schedule: JobSchedule) => Promise<unknown>

/**
 * Fires each slot of each schedule once. A row with the slot as its key says that it was fired, so
 * it does not matter how many processes try. Slots that passed while no process ran are made up for
 * by firing the last of them.
 */
export class Schedules {
  readonly #open: () => Db
  readonly #enqueue: EnqueueScheduled
  readonly #entries: { schedule: JobSchedule; cron: Cron; nextSlot: number }[]

  /**
   * @throws Error for a cron expression that is none or never fires, or two schedules with one
   * name; TypeError or AppError `too_large` for an input that no job can have.
   */
  constructor(open: () => Db, schedules: readonly JobSchedule[], enqueue: EnqueueScheduled) {
    const names = schedules.map(({ name }) => name)
    const twice = names.find((name, index) => names.indexOf(name) !== index)
    if (twice) throw new Error(`Two schedules have one name: ${twice}`)
    this.#open = open
    this.#enqueue = enqueue
    this.#entries = schedules.map((schedule) => ({ schedule, cron: cronOf(schedule), nextSlot: 0 }))
    // Refused here: one that could not be fired later would keep those after it from being fired.
    for (const { job, input } of schedules) toNewJob(job, input as never, {})
  }

  async fire(): Promise<void> {
    const now = await readClock(this.#open())
    for (const entry of this.#entries) {
      if (now.getTime() < entry.nextSlot) continue
      const slot = lastSlot(entry.cron, now)
      if (slot)
        await transaction(
          this.#open(),
          (trx) => this.#fireSlot(trx, entry.schedule, slot),
          'read committed',
        )
      entry.nextSlot = entry.cron.nextRun(now)?.getTime() ?? Number.POSITIVE_INFINITY
    }
  }

  /** A schedule that was never fired is new, not late: its first slot is the next one. */
  async #fireSlot(trx: Transaction<Tables>, schedule: JobSchedule, slot: Date): Promise<void> {
    const newest = await newestSlot(trx, schedule.name)
    if (newest && newest >= slot) return
    const { numInsertedOrUpdatedRows = 0n } = await trx
      .insertInto('job_slot')
      .ignore()
      .values({ schedule: schedule.name, slot })
      .executeTakeFirstOrThrow()
    if (newest && numInsertedOrUpdatedRows > 0n) await this.#enqueue(trx, schedule)
  }
}

/**
 * Five fields, or six with seconds, or `@daily`: what has a year in it would fire for some time,
 * and then never.
 */
const RECURRING = /^\s*(@\w+|\S+(\s+\S+){4,5})\s*$/

/**
 * An expression for a date that never comes would cost a search through years each time, and never
 * fire.
 */
function cronOf({ name, cron: expression }: JobSchedule): Cron {
  if (!RECURRING.test(expression))
    throw new Error(
      `The schedule ${name} needs five fields, or six with seconds: ${JSON.stringify(expression)} has others`,
    )
  // An offset, since a time zone would be looked up in the tables of Intl, whose first use takes up
  // to 0.2 s.
  const cron = new Cron(expression, { utcOffset: 0 })
  if (!cron.nextRun())
    throw new Error(
      `The schedule ${name} never fires: no date matches ${JSON.stringify(expression)}`,
    )
  return cron
}

/**
 * Forgets slots that were fired long ago, but never the newest of a schedule; `open` gives a handle
 * for one statement.
 */
export async function pruneSlots(open: () => Db, signal?: AbortSignal): Promise<void> {
  const newest = await open()
    .selectFrom('job_slot')
    .select(['schedule', ({ fn }) => fn.max('slot').as('slot')])
    .groupBy('schedule')
    .execute()
  for (const { schedule, slot } of newest)
    while (!signal?.aborted && (await deleteSlots(open(), schedule, slot)) === PRUNE_BATCH);
}

/** Those of a schedule before `slot` that were fired long ago, as many as one bite takes. */
async function deleteSlots(db: Db, schedule: string, slot: Date): Promise<number> {
  const { numAffectedRows = 0n } = await sql`
    delete from job_slot where schedule = ${schedule} and slot < ${slot} and slot < now() - interval 7 day
    order by schedule, slot limit ${sql.lit(PRUNE_BATCH)}
  `.execute(db)
  return Number(numAffectedRows)
}

async function readClock(db: Db): Promise<Date> {
  const { rows } = await sql<{ now: Date }>`select now(3) as now`.execute(db)
  return rows[0]?.now as Date
}

async function newestSlot(trx: Transaction<Tables>, schedule: string): Promise<Date | undefined> {
  const row = await trx
    .selectFrom('job_slot')
    .select('slot')
    .where('schedule', '=', schedule)
    .orderBy('slot', 'desc')
    .limit(1)
    .executeTakeFirst()
  return row?.slot
}

/** The last slot that is not after `now`: croner gives those before a time. */
function lastSlot(cron: Cron, now: Date): Date | undefined {
  return cron.previousRuns(1, new Date(Math.floor(now.getTime() / 1_000) * 1_000 + 1_000))[0]
}
