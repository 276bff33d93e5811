import { loadConfig } from '../src/config.ts'
import { Database } from '../src/db/database.ts'
import { migrateUp } from '../src/db/migrate.ts'
import { seedProducts } from '../src/features/products/seed.ts'

/**
 * Brings the schema up to date and, where there are no products yet, adds the examples.
 *
 * @throws AppError for bad configuration, before anything is touched.
 */
export async function prepareDatabase(url: string): Promise<void> {
  const config = loadConfig({ ...process.env, DATABASE_URL: url })
  await using database = await Database.open(config.database)
  const db = database.withSignal()
  const migrations = await migrateUp(db)
  if (migrations.length > 0) console.log(`Migrated: ${migrations.join(', ')}`)
  const seeded = await seedProducts(db)
  if (seeded > 0) console.log(`Added ${seeded} example products`)
}
