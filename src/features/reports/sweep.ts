import { join } from 'node:path'
import type { Database, Db } from '../../db/database.ts'
import { type BuildDeps, idOf, removeFolder } from './build.ts'
import * as queries from './queries.ts'
import { namesOlderThan, type Storage } from './storage.ts'

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
/** How many old uploads are read at once. */
const BATCH = 500

export type SweepDeps = Pick<BuildDeps, 'storage' | 'spillDirectory'> & {
  database: Pick<Database, 'withSignal'>
}

/**
 * Removes uploads that are a day old, those of jobs that were cancelled an hour ago (so that an
 * operator can retry them until then), those that no report knows (of clients that left and
 * processes that were killed), and the folders of reports that do not run any more. All of it in
 * batches: there may be a hundred thousand of each.
 */
export async function sweep(
  { database, storage, spillDirectory }: SweepDeps,
  signal: AbortSignal,
): Promise<void> {
  const db = database.withSignal(signal)
  await removeOldUploads(db, storage)
  for await (const uploads of storage.untouched(HOUR_MS)) {
    const known = await queries.knownUploads(db, uploads)
    for (const upload of uploads) if (!known.has(upload)) await storage.remove(upload)
  }
  for await (const folders of namesOlderThan(spillDirectory, HOUR_MS)) {
    const running = await queries.runningReports(db, folders.map(idOf))
    for (const folder of folders)
      if (!running.has(idOf(folder))) await removeFolder(join(spillDirectory, folder))
  }
}

async function removeOldUploads(db: Db, storage: Storage): Promise<void> {
  for (;;) {
    const old = await queries.listOldUploads(db, {
      finishedMs: DAY_MS,
      cancelledMs: HOUR_MS,
      limit: BATCH,
    })
    if (old.length === 0) return
    for (const { upload } of old) await storage.remove(upload)
    await queries.forgetUploads(
      db,
      old.map(({ id }) => id),
    )
  }
}
