import { Database } from '../../src/db/database.ts'
import { openJobs, POOL_SIZE } from './open-jobs.ts'
import { handlersOn } from './work.ts'

/** Runs jobs from the first message on, and sends how many it has done. */
const { DATABASE_URL: url = '', CONCURRENCY, TIMING = '{}' } = process.env
const REPORT_EVERY_MS = 20

const database = await Database.open({ url, poolSize: POOL_SIZE })
const jobs = openJobs(database, Number(CONCURRENCY), { timing: JSON.parse(TIMING) })
let done = 0
jobs.onChange(({ kind, state }) => {
  if (kind.startsWith('bench.') && state === 'succeeded') done++
})

process.once('SIGTERM', stop).once('disconnect', stop)
process.once('message', () => {
  jobs.start({ handlers: handlersOn(database), schedules: [] })
  setInterval(() => process.send?.(done), REPORT_EVERY_MS)
})
process.send?.(done)

async function stop() {
  await jobs.stop()
  await database[Symbol.asyncDispose]()
  process.exit()
}
