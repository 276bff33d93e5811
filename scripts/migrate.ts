import './load-env.ts'
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Db } from '../src/db/database.ts'
import { MIGRATIONS, migrateDown, migrateUp, migrationStatus } from '../src/db/migrate.ts'
import { AppError } from '../src/errors.ts'
import { onDatabase } from './database/local-database.ts'

/** `npm run migrate up | down | status | new NAME`. */
const USAGE = `Usage: npm run migrate up       run what has not run yet
       npm run migrate down     undo the newest migration
       npm run migrate status   list them all
       npm run migrate new NAME start a new one`

const TEMPLATE = `import { type Kysely, sql } from 'kysely'

/** Why this change, and what a reader must know of it. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql\`\`.execute(db)
}

export async function down(db: Kysely<unknown>): Promise<void> {
  await sql\`\`.execute(db)
}
`

const commands: Record<string, (db: Db) => Promise<string[]>> = {
  up: async (db) => report('Migrated', await migrateUp(db)),
  down: async (db) => report('Undone', await migrateDown(db)),
  status: async (db) =>
    (await migrationStatus(db)).map(
      ({ name, executedAt }) => `${name}  ${executedAt?.toISOString() ?? 'pending'}`,
    ),
}

const [command = '', name = ''] = process.argv.slice(2)
try {
  if (command === 'new') console.log(create(name))
  else if (commands[command]) console.log((await onDatabase(commands[command])).join('\n'))
  else throw new AppError('bad_request', USAGE)
} catch (error) {
  console.error(error instanceof AppError ? error.message : error)
  process.exitCode = 1
}

function report(verb: string, names: string[]) {
  return names.length > 0 ? names.map((name) => `${verb}: ${name}`) : ['Nothing to do']
}

function create(name: string): string {
  if (!/^[a-z][a-z0-9-]*$/.test(name))
    throw new AppError('bad_request', 'Name the migration in lower case with dashes: add-supplier')
  const last = Math.max(0, ...readdirSync(MIGRATIONS).map((file) => Number.parseInt(file, 10) || 0))
  const file = join(MIGRATIONS, `${String(last + 1).padStart(3, '0')}-${name}.ts`)
  writeFileSync(file, TEMPLATE, { flag: 'wx' })
  return `Created ${file}`
}
