import { handle, job } from '@offloop/jobs/job'
import { sql } from 'kysely'
import { transaction } from '../../src/db/transaction.ts'
import { type Deps, feature } from '../../src/feature.ts'
import { type AppContext, getContext } from '../../src/http/context.ts'
import { createRouter, withAccess } from '../../src/http/router.ts'
import { openService } from '../../src/main.ts'
import { runService } from '../../src/shutdown.ts'

const slowJob = job('slow.job')

/** A service whose requests, and jobs that these enqueue, have statements that take long. */
const slow = feature({
  name: 'slow',
  path: '/v1/slow',
  jobs: ({ database }: Deps) => [
    handle(slowJob, async (_, { signal }) => {
      await sql`select sleep(0.3) as job`.execute(database.withSignal(signal))
    }),
  ],
  routes({ database, jobs }: Deps) {
    const router = createRouter()
    const sleep = async (c: AppContext) => {
      const seconds = Number(c.req.param('seconds'))
      const db = database.withSignal(getContext(c).signal)
      await transaction(db, (trx) => jobs.enqueue(trx, slowJob, undefined))
      // A text of its own for each time, so that none counts as a repeat.
      await sql`select sleep(${seconds}) as ${sql.ref(`s${Math.ceil(seconds)}`)}`.execute(db)
      return c.body(null, 204)
    }
    router.get('/:seconds', withAccess('public', sleep))
    return router
  },
})

process.exit(
  await runService(() =>
    openService(process.env, [slow], new URL('./fixture/thread.ts', import.meta.url)),
  ),
)
