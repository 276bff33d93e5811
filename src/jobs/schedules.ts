import { Cron } from 'croner'
import { sql, type Transaction } from 'kysely'
import type { Db } from '../db/database.ts'
import type { Tables } from '../db/tables.ts'
import { transaction } from '../db/transaction.ts'
import type { JobSchedule } from './handler.ts'

/** Puts the job of a schedule into the queue, in the transaction that marks its slot as fired. */
type EnqueueScheduled = (trx: Transaction<Tables>, schedule: JobSchedule) => Promise<unknown>

/**
 * Fires each slot of each schedule once. A row with the slot as its key says that it was fired, so it does not matter how
 * many processes try. Slots that passed while no process ran are made up for by firing the last of them.
 */
export class Schedules {
  readonly #open: () => Db
  readonly #enqueue: EnqueueScheduled
  readonly #entries: { schedule: JobSchedule; cron: Cron; settledSlot: number }[]

  /** @throws Error for a cron expression that is none or never fires, or two schedules with one name. */
  constructor(open: () => Db, schedules: readonly JobSchedule[], enqueue: EnqueueScheduled) {
    const names = schedules.map(({ name }) => name)
    const twice = names.find((name, index) => names.indexOf(name) !== index)
    if (twice) throw new Error(`Two schedules have one name: ${twice}`)
    this.#open = open
    this.#enqueue = enqueue
    this.#entries = schedules.map((schedule) => ({
      schedule,
      cron: cronOf(schedule),
      settledSlot: 0,
    }))
  }

  async fire(): Promise<void> {
    const now = await readClock(this.#open())
    for (const entry of this.#entries) {
      const slot = lastSlot(entry.cron, now)
      if (!slot || slot.getTime() === entry.settledSlot) continue
      await transaction(this.#open(), (trx) => this.#fireSlot(trx, entry.schedule, slot), 'read committed')
      entry.settledSlot = slot.getTime()
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

/** An expression for a date that never comes would cost a search through years each time, and never fire. */
function cronOf({ name, cron: expression }: JobSchedule): Cron {
  const cron = new Cron(expression, { timezone: 'UTC' })
  if (!cron.nextRun()) throw new Error(`The schedule ${name} never fires: no date matches ${JSON.stringify(expression)}`)
  return cron
}

/** Forgets slots that were fired long ago, but never the newest of a schedule. */
export async function pruneSlots(db: Db): Promise<void> {
  await sql`
    delete old from job_slot old join job_slot newer on newer.schedule = old.schedule and newer.slot > old.slot
    where old.slot < now() - interval 7 day
  `.execute(db)
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
