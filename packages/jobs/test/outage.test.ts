import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import { describe, expect, onTestFinished, test } from 'vitest'
import { Database } from '../../../src/db/database.ts'
import { migrateUp } from '../../../src/db/migrate.ts'
import { transaction } from '../../../src/db/transaction.ts'
import { canOwnServer, useOwnServer } from '../../../test/support/own-server.ts'
import { until } from '../../../test/support/until.ts'
import { handle, job } from '../job.ts'
import { useJobs } from './support/jobs.ts'

const JOBS = 40
const CONCURRENCY = 5
const nap = job<null>('test.nap', { attempts: 3 })

/** What the log says, one entry a line. */
function useLog() {
  const lines: Record<string, unknown>[] = []
  return {
    lines,
    log: pino(
      { level: 'info', base: null },
      { write: (line: string) => void lines.push(JSON.parse(line)) },
    ),
  }
}

describe.runIf(canOwnServer)(
  'a database that is killed and started again under running jobs',
  () => {
    test('costs none of them, and the log a line for each loop', async () => {
      const server = await useOwnServer()
      const database = await Database.open({ url: server.url, poolSize: 10 })
      onTestFinished(() => database[Symbol.asyncDispose]())
      const db = database.withSignal()
      await migrateUp(db)
      const { lines, log } = useLog()
      const options = {
        concurrency: CONCURRENCY,
        handlers: [handle(nap, () => sleep(400))],
        log,
        timing: { leaseMs: 2_000, heartbeatMs: 500, pollMs: 100, maxBackoffMs: 1_000 },
      }
      const { jobs } = useJobs(database, options)
      useJobs(database, options)
      await transaction(db, async (trx) => {
        for (let index = 0; index < JOBS; index++) await jobs.enqueue(trx, nap, null)
      })
      await until(async () => (await jobs.count(db)).succeeded >= 5, 'some are done')
      await server.send('SIGKILL')
      // Longer than the leases last.
      await sleep(2_500)
      await server.restart()
      await until(
        async () => (await jobs.count(db).catch(() => undefined))?.succeeded === JOBS,
        'all are done',
      )
      const unlucky = await db
        .selectFrom('job_attempt')
        .select('outcome')
        .where('outcome', '!=', 'succeeded')
        .execute()
      // Only what was being claimed when the database died may have to begin again: no reply said
      // that it was claimed.
      expect(unlucky.every(({ outcome }) => outcome === 'lost')).toBe(true)
      expect(unlucky.length).toBeLessThanOrEqual(2 * CONCURRENCY)
      const incidents = lines.filter(({ msg }) => msg === 'Job loop failed, retrying')
      for (const [loop, { length }] of Map.groupBy(incidents, (line) => line['loop']))
        expect(length, `${loop} in both processes`).toBeLessThanOrEqual(2)
    })
  },
)
