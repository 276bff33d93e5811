import { setTimeout as sleep } from 'node:timers/promises'
import { handle, job } from '@offloop/jobs/job'
import { sql } from 'kysely'
import type { Database, Db } from '../../src/db/database.ts'
import { isDuplicateKey } from '../../src/db/errors.ts'

export const nothing = job<number>('bench.nothing')

/** Takes `ms`, and has its effect in the middle. */
export const effect = job<{ ms: number }>('bench.effect', { attempts: 100, backoffMs: 10 })

export const handlersOn = (database: Database) => [
  handle(nothing, () => {}),
  handle(effect, async ({ ms }, { id, attempt, signal }) => {
    const db = database.withSignal(signal)
    await sql`insert into bench_run values (${id}, ${attempt})`.execute(db)
    await sleep(ms / 2, undefined, { signal })
    await sql`insert into bench_effect values (${id})`.execute(db).catch((error) => {
      if (!isDuplicateKey(error, 'PRIMARY')) throw error
    })
    await sleep(ms / 2, undefined, { signal })
  }),
]

/** What `effect` writes: a row for each attempt that has begun, and one for each job. */
export async function createEffects(db: Db): Promise<void> {
  const id = sql`job_id char(36) character set ascii collate ascii_bin not null`
  await sql`create table bench_effect (${id} primary key)`.execute(db)
  await sql`
    create table bench_run (${id}, attempt int not null, primary key (job_id, attempt))
  `.execute(db)
}
