import { loadConfig } from '../../src/config.ts'
import { Database, type Db } from '../../src/db/database.ts'
import { openLocalDatabase } from './local-database.ts'

/** Runs `work` on the database of DATABASE_URL or, without it, the local one, and closes both. */
export async function onDatabase<T>(work: (db: Db) => Promise<T>): Promise<T> {
  const local = await openLocalDatabase()
  try {
    const config = loadConfig({ ...process.env, DATABASE_URL: local.url })
    await using database = await Database.open(config.database)
    return await work(database.withSignal())
  } finally {
    await local.stop()
  }
}
