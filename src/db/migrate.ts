import fs from 'node:fs/promises'
import path from 'node:path'
import { FileMigrationProvider, type MigrationResultSet, Migrator } from 'kysely/migration'
import { AppError } from '../errors.ts'
import type { Db } from './database.ts'

export const MIGRATIONS = path.join(import.meta.dirname, '../../migrations')

/**
 * Runs pending migrations, one process at a time, and returns their names.
 *
 * @throws AppError `conflict` when the database is newer than this checkout.
 */
export const migrateUp = (db: Db, folder?: string) =>
  run(db, folder, (migrator) => migrator.migrateToLatest())

/** Undoes the newest; throws as `migrateUp` does. */
export const migrateDown = (db: Db, folder?: string) =>
  run(db, folder, (migrator) => migrator.migrateDown())

export const migrationStatus = (db: Db, folder = MIGRATIONS) =>
  createMigrator(db, folder).getMigrations()

/** @throws AppError `conflict` naming the pending migrations. */
export async function assertMigrated(db: Db): Promise<void> {
  const migrations = await migrationStatus(db)
  const pending = migrations.filter(({ executedAt }) => !executedAt).map(({ name }) => name)
  if (pending.length > 0)
    throw new AppError(
      'conflict',
      `The database lacks ${pending.join(', ')}: run \`npm run migrate up\` first`,
    )
}

async function run(
  db: Db,
  folder = MIGRATIONS,
  migrate: (migrator: Migrator) => Promise<MigrationResultSet>,
): Promise<string[]> {
  await assertKnown(db, folder)
  const { error, results = [] } = await migrate(createMigrator(db, folder))
  if (error) throw error
  return results.map(({ migrationName }) => migrationName)
}

async function assertKnown(db: Db, folder: string) {
  const tables = await db.introspection.getTables({ withInternalKyselyTables: true })
  if (!tables.some(({ name }) => name === 'kysely_migration')) return
  const executed = await db
    .withTables<{ kysely_migration: { name: string } }>()
    .selectFrom('kysely_migration')
    .select('name')
    .execute()
  const known = new Set((await migrationStatus(db, folder)).map(({ name }) => name))
  const unknown = executed.map(({ name }) => name).filter((name) => !known.has(name))
  if (unknown.length > 0)
    throw new AppError(
      'conflict',
      `The database is newer than this checkout: it has ${unknown.join(', ')}. ` +
        'Check out the version that migrated it',
    )
}

/** No transactions, because MySQL commits DDL at once. */
const createMigrator = (db: Db, migrationFolder: string) =>
  new Migrator({
    db,
    provider: new FileMigrationProvider({ fs, path, migrationFolder }),
    disableTransactions: true,
  })
