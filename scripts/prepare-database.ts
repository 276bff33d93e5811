import { loadConfig } from '../src/config.ts'
import { Database } from '../src/db/database.ts'
import { migrateUp } from '../src/db/migrate.ts'
import { AppError } from '../src/errors.ts'
import type { Feature } from '../src/feature.ts'
import { features } from '../src/features/index.ts'

/**
 * Brings the schema up to date and, unless this is production, lets the features fill their empty
 * tables. Docker Compose runs this file before the service.
 *
 * @throws AppError for bad configuration, before anything is touched.
 */
export async function prepareDatabase(url: string): Promise<void> {
  const config = loadConfig({ ...process.env, DATABASE_URL: url })
  await using database = await Database.open(config.database)
  const db = database.withSignal()
  const migrations = await migrateUp(db)
  if (migrations.length > 0) console.log(`Migrated: ${migrations.join(', ')}`)
  if (process.env['NODE_ENV'] === 'production') return
  for (const { name, seed } of features as readonly Feature[]) {
    const count = (await seed?.(db)) ?? 0
    if (count > 0) console.log(`Added ${count} example ${name}`)
  }
}

if (import.meta.main) {
  try {
    await prepareDatabase(process.env['DATABASE_URL'] ?? '')
  } catch (error) {
    console.error(error instanceof AppError ? error.message : error)
    process.exitCode = 1
  }
}
