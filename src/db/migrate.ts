import fs from 'node:fs/promises'
import path from 'node:path'
import { FileMigrationProvider, type MigrationInfo, Migrator } from 'kysely/migration'
import { AppError } from '../errors.ts'
import type { Db } from './database.ts'

export const MIGRATIONS = path.join(import.meta.dirname, '../../migrations')

/**
 * Brings the schema up to date and names the migrations it ran. Several processes may call it at
 * once: they take turns under a lock of the server's, and the late ones find nothing left to do.
 *
 * @throws AppError `conflict` when the database has a migration that this checkout lacks; the first
 * failing migration's error.
 */
export const migrateUp = (db: Db, folder?: string) =>
  run(db, folder, (migrator) => migrator.migrateToLatest())

/** Undoes the newest migration and names it. */
export const migrateDown = (db: Db, folder?: string) =>
  run(db, folder, (migrator) => migrator.migrateDown())

/** Every known migration, with the date it ran if it has. */
export async function migrationStatus(
  db: Db,
  folder = MIGRATIONS,
): Promise<readonly MigrationInfo[]> {
  return createMigrator(db, folder).getMigrations()
}

/** @throws AppError `conflict` naming the migrations that have yet to run. */
export async function assertMigrated(db: Db): Promise<void> {
  const pending = (await migrationStatus(db))
    .filter(({ executedAt }) => !executedAt)
    .map(({ name }) => name)
  if (pending.length > 0)
    throw new AppError(
      'conflict',
      `The database lacks ${pending.join(', ')}: run \`npm run migrate up\` first`,
    )
}

async function run(
  db: Db,
  folder = MIGRATIONS,
  direction: (migrator: Migrator) => ReturnType<Migrator['migrateUp']>,
) {
  await assertKnown(db, folder)
  const { error, results = [] } = await direction(createMigrator(db, folder))
  if (error) throw error
  return results.map(({ migrationName }) => migrationName)
}

async function assertKnown(db: Db, folder: string) {
  const known = await provider(folder).getMigrations()
  const unknown = (await executedMigrations(db)).filter((name) => !Object.hasOwn(known, name))
  if (unknown.length > 0)
    throw new AppError(
      'conflict',
      `The database is newer than this checkout: it has ${unknown.join(', ')}. Check out the version that migrated it`,
    )
}

async function executedMigrations(db: Db): Promise<string[]> {
  const tables = await db.introspection.getTables({ withInternalKyselyTables: true })
  if (!tables.some(({ name }) => name === 'kysely_migration')) return []
  const rows = await db
    .withTables<{ kysely_migration: { name: string } }>()
    .selectFrom('kysely_migration')
    .select('name')
    .execute()
  return rows.map(({ name }) => name)
}

/** MySQL commits DDL at once, so a transaction around a migration would only pretend. */
const createMigrator = (db: Db, folder: string) =>
  new Migrator({ db, provider: provider(folder), disableTransactions: true })

const provider = (migrationFolder: string) =>
  new FileMigrationProvider({ fs, path, migrationFolder })
