import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { Database } from '../../src/db/database.ts'
import {
  assertMigrated,
  MIGRATIONS,
  migrateDown,
  migrateUp,
  migrationStatus,
} from '../../src/db/migrate.ts'
import { createEmptyDatabase } from '../support/database.ts'

async function useEmptyDatabase() {
  const { url, drop } = await createEmptyDatabase()
  const database = await Database.open({ url, poolSize: 4 })
  onTestFinished(async () => {
    await database[Symbol.asyncDispose]()
    await drop()
  })
  return database
}

/** The project's migrations and these, within the project, so that they find its packages. */
async function useMigrations(files: Record<string, string>) {
  const data = join(MIGRATIONS, '../.data')
  await mkdir(data, { recursive: true })
  const folder = await mkdtemp(join(data, 'test-migrations-'))
  onTestFinished(() => rm(folder, { recursive: true }))
  await cp(MIGRATIONS, folder, { recursive: true })
  for (const [file, text] of Object.entries(files)) await writeFile(join(folder, file), text)
  return folder
}

const tablesOf = async (database: Database) =>
  (await database.withSignal().introspection.getTables()).map(({ name }) => name)

describe('migrations', () => {
  test('go up, do nothing the second time, and come all the way down', async () => {
    const database = await useEmptyDatabase()
    const db = database.withSignal()
    await expect(assertMigrated(db)).rejects.toMatchObject({
      code: 'conflict',
      message: expect.stringContaining('npm run migrate up'),
    })
    const names = await migrateUp(db)
    expect(names.length).toBeGreaterThan(0)
    expect(await migrateUp(db)).toEqual([])
    await assertMigrated(db)
    for (const name of names.toReversed()) expect(await migrateDown(db)).toEqual([name])
    expect(await tablesOf(database)).toEqual([])
  })

  test('run once when several processes start at once', async () => {
    const database = await useEmptyDatabase()
    const ran = await Promise.all(Array.from({ length: 4 }, () => migrateUp(database.withSignal())))
    expect(ran.flat()).toEqual(
      (await migrationStatus(database.withSignal())).map(({ name }) => name),
    )
  })

  test('leave a database alone that is newer than the checkout', async () => {
    const database = await useEmptyDatabase()
    const folder = await useMigrations({
      '999-later.ts': 'export const up = async () => {}; export const down = up',
    })
    await migrateUp(database.withSignal(), folder)
    for (const migrate of [migrateUp, migrateDown])
      await expect(migrate(database.withSignal())).rejects.toMatchObject({
        code: 'conflict',
        message:
          'The database is newer than this checkout: it has 999-later. Check out the version that migrated it',
      })
  })

  test('stop at the one that fails, and go on from there when it is repaired', async () => {
    const database = await useEmptyDatabase()
    const broken = await useMigrations({
      '998-broken.ts': `export const up = async () => { throw new Error('broken') }`,
    })
    await expect(migrateUp(database.withSignal(), broken)).rejects.toThrow('broken')
    const repaired = await useMigrations({
      '998-broken.ts': 'export const up = async () => {}; export const down = up',
    })
    expect(await migrateUp(database.withSignal(), repaired)).toEqual(['998-broken'])
  })
})
