import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'kysely'
import { pino } from 'pino'
import { Database } from '../../../../src/db/database.ts'
import { isDuplicateKey } from '../../../../src/db/errors.ts'
import { runService } from '../../../../src/shutdown.ts'
import { until } from '../../../../test/support/until.ts'
import { handle } from '../../job.ts'
import { Jobs } from '../../jobs.ts'
import { access } from './jobs.ts'
import { fair, leaveMark, limited, poison, sayWho, waitForSignal } from './test-jobs.ts'

/**
 * A service that runs only the jobs of test-jobs.ts, at a faster pace than a real one:
 * TIMING is its Timing, in JSON.
 */
const { DATABASE_URL: url = '', TIMING = '{}', CONCURRENCY = '5' } = process.env
const log = pino({ level: 'warn' }, pino.destination({ sync: true }))

process.exit(await runService(open, () => console.log(`pid ${process.pid} is ready`)))

async function open() {
  const database = await Database.open({ url, poolSize: 10 })
  const jobs = new Jobs({
    ...access(database),
    log,
    worker: randomUUID(),
    queues: { '*': Number(CONCURRENCY) },
    keepMs: 600_000,
    timing: JSON.parse(TIMING),
  })
  jobs.start({ handlers: handlersOn(database), schedules: [] })
  return {
    url,
    opsUrl: undefined,
    log,
    pending: () => ({ requests: 0, tasks: 0, jobs: jobs.running, sockets: 0 }),
    async stop(crashed?: boolean) {
      await jobs.stop(crashed)
      await database[Symbol.asyncDispose]()
    },
  }
}

function handlersOn(database: Database) {
  return [
    handle(leaveMark, async ({ mark, ms }, { signal }) => {
      await sleep(ms / 2, undefined, { signal })
      const db = database.withSignal(signal)
      // Not `insert ignore`: it would make a warning of any error, and a lost mark of that.
      await sql`insert into mark (name) values (${mark})`.execute(db).catch((error) => {
        if (!isDuplicateKey(error, 'PRIMARY')) throw error
      })
      await sleep(ms / 2, undefined, { signal })
    }),
    handle(limited, ({ ms }, { signal }) => sleep(ms, undefined, { signal })),
    handle(fair, ({ ms }, { signal }) => sleep(ms, undefined, { signal })),
    handle(sayWho, async ({ mark }) => {
      const find = () =>
        sql`select name from mark where name = ${mark}`.execute(database.withSignal())
      await until(async () => (await find()).rows.length > 0, 'the mark is there')
      return process.pid
    }),
    handle(waitForSignal, async (_, { signal }) => {
      await once(signal, 'abort')
      signal.throwIfAborted()
    }),
    handle(poison, async ({ way }) => {
      if (way === 'exit') process.exit(1)
      void Promise.reject(new Error('Nobody catches this'))
      await sleep(60_000)
    }),
  ]
}
