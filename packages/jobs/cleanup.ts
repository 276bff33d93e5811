import { performance } from 'node:perf_hooks'
import { sql } from 'kysely'
import { Loop } from './loop.ts'
import { CLEANUP_BATCH } from './store.ts'
import { type Db, typed } from './tables.ts'
import type { WorkerOptions } from './worker.ts'

const RENEW_EVERY_MS = 60_000
const SLOT_BATCH = 1_000
/** Less than a batch, which processes may share. */
const WORTHWHILE = CLEANUP_BATCH / 10

export interface CleanupOptions
  extends Pick<WorkerOptions, 'store' | 'log' | 'timing' | 'onChange'> {
  /** Those that this process runs. */
  kinds: readonly string[]
}

/** Prunes finished jobs, parks orphaned ones and returns them, in every process at once. */
export class Cleanup {
  readonly #options: CleanupOptions
  readonly loop: Loop
  #renewedAt = Number.NEGATIVE_INFINITY

  constructor(options: CleanupOptions) {
    const { log, timing } = options
    this.#options = options
    const runOnce = () => this.runOnce()
    const { cleanUpMs: restMs, maxBackoffMs } = timing
    this.loop = new Loop({ name: 'clean up', log, restMs, maxBackoffMs, runOnce })
  }

  async runOnce(): Promise<boolean> {
    const { store, kinds, onChange } = this.#options
    await this.#renew()
    const unparked = await store.unpark(kinds)
    onChange(unparked)
    const parked = await store.park()
    onChange(parked)
    const pruned = await store.prune()
    return Math.max(unparked.length, parked.length, pruned) >= WORTHWHILE
  }

  async #renew(): Promise<void> {
    const { store, kinds } = this.#options
    const now = performance.now()
    if (now - this.#renewedAt < RENEW_EVERY_MS) return
    await store.renewKinds(kinds)
    await pruneSlots(() => store.open(false))
    this.#renewedAt = now
  }
}

/** Deletes slots older than a week, except each schedule's newest. */
export async function pruneSlots(open: () => Db): Promise<void> {
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
  for (const entry of newest) while ((await prune(entry)) === SLOT_BATCH);
}
