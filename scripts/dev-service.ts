import './load-env.ts'
import { setTimeout as sleep } from 'node:timers/promises'
import { loadConfig } from '../src/config.ts'
import { Database } from '../src/db/database.ts'
import { assertMigrated } from '../src/db/migrate.ts'
import { AppError } from '../src/errors.ts'
import { features } from '../src/features/index.ts'
import { openService } from '../src/main.ts'
import { runService, type Service } from '../src/shutdown.ts'

const POLL_MS = 500

/**
 * What `npm run dev` starts again on every change: the service, once the database can serve it. It
 * waits for migrations rather than running them, because one that is being written must not run
 * half finished.
 */
await untilMigrated()
process.exit(await runService(() => openService(process.env, features), welcome))

function welcome({ url, signInUrl }: Service) {
  console.log(`
offloop runs on ${url}
${signInUrl ? `Sign in, once and within 10 minutes: ${signInUrl}\n` : ''}The API to read and try: ${url}/docs
A change of a file restarts it; Ctrl-C stops it all, and the data stays.
`)
}

/** Prints what is in the way, once, and resolves when it is gone. */
async function untilMigrated() {
  for (let printed: string | undefined; ; await sleep(POLL_MS)) {
    const problem = await findProblem()
    if (!problem) return
    if (problem !== printed) console.error(`${problem}. The service starts once this is solved`)
    printed = problem
  }
}

/** @throws what a migration throws that cannot be loaded: changing it starts this file again. */
async function findProblem(): Promise<string | undefined> {
  try {
    await using database = await Database.open(loadConfig(process.env).database)
    await assertMigrated(database.withSignal())
    return undefined
  } catch (error) {
    if (error instanceof AppError) return error.message
    throw error
  }
}
