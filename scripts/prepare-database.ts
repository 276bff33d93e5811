import { Database } from '../src/db/database.ts'
import { migrateUp } from '../src/db/migrate.ts'
import { seedProducts } from '../src/features/products/seed.ts'

/** Brings the schema up to date and, where there are no products yet, adds the examples. */
export async function prepareDatabase(url: string): Promise<void> {
  await using database = await Database.open({ url, poolSize: 1 })
  const db = database.withSignal()
  const migrations = await migrateUp(db)
  if (migrations.length > 0) console.log(`Migrated: ${migrations.join(', ')}`)
  const seeded = await seedProducts(db)
  if (seeded > 0) console.log(`Added ${seeded} example products`)
}
