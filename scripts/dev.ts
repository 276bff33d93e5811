import './load-env.ts'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { AppError } from '../src/errors.ts'
import { type LocalDatabase, openLocalDatabase } from './database/local-database.ts'
import { prepareDatabase } from './prepare-database.ts'

/**
 * `npm run dev`: one database for the session, and a service that restarts whenever a source file
 * or a migration changes.
 */
const ROOT = join(import.meta.dirname, '..')
const WATCHED = ['src', 'packages', 'public', 'migrations'].map(
  (folder) => `--watch-path=${join(ROOT, folder)}`,
)

let database: LocalDatabase | undefined
try {
  database = await openLocalDatabase()
  await prepareDatabase(database.url)
  console.log(`Database: ${database.label}`)
  await serve(database.url)
} catch (error) {
  console.error(error instanceof AppError ? error.message : error)
  process.exitCode = 1
}
await database?.stop()

/** Resolves when the service is stopped for good. */
async function serve(databaseUrl: string) {
  const service = spawn(
    process.execPath,
    [
      ...process.execArgv,
      ...WATCHED,
      '--watch-preserve-output',
      join(ROOT, 'scripts/dev-service.ts'),
    ],
    {
      stdio: 'inherit',
      env: {
        NODE_ENV: 'development',
        // feature: primes
        DEMO_INLINE: 'true',
        // /feature
        ...process.env,
        DATABASE_URL: databaseUrl,
      },
    },
  )
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.on(signal, () => service.kill(signal))
  await once(service, 'exit')
}
