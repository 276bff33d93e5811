import './load-env.ts'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { openLocalDatabase } from './database/local-database.ts'
import { prepareDatabase } from './prepare-database.ts'

/** `npm run dev`: one database for the session, and a service that restarts whenever a source file changes. */
const database = await openLocalDatabase()
await prepareDatabase(database.url)
console.log(`Database: ${database.label}`)

const root = join(import.meta.dirname, '..')
const watched = ['src', 'public', 'migrations'].map((folder) => `--watch-path=${join(root, folder)}`)
const service = spawn(process.execPath, [...watched, '--watch-preserve-output', join(root, 'src/main.ts')], {
  stdio: 'inherit',
  env: { DEMO_INLINE: 'true', ...process.env, DATABASE_URL: database.url },
})
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => service.kill(signal))
await once(service, 'exit')
await database.stop()
