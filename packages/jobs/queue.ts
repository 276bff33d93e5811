import { performance } from 'node:perf_hooks'
import type { Transaction } from 'kysely'
import type { Tables } from '../../src/db/tables.ts'
import { lockFirst, lockNamed, readFirst } from './locks.ts'
import type { Claim } from './record.ts'

/** A locking walk that takes longer than this is too long to be made for each claim. */
const LONG_WALK_MS = 10
/** How often a locking walk is tried again, and only while plain reads take less than this. */
const RETRY_WALK_MS = 2_000
const SHORT_READ_MS = 5
/** How many jobs one plain read finds. */
const READ_AHEAD = 500
/** How long what it found is used: for this, or for so many times what it took. */
const MIN_FRESH_MS = 100
const FRESH_PER_READ = 10

/**
 * The queue as it is for jobs of some kinds. Its head is found in one of two ways.
 *
 * Usually a claim walks along the index and locks the first jobs that nobody else is taking. But
 * the way may be long: the server keeps the index entries of jobs that were claimed for as long as
 * any transaction is open that is older than that, such as a backup's, and a walk that locks takes
 * about a microsecond for each of them. So it does for queued jobs of kinds that are not wanted.
 *
 * Then the first jobs are read ahead without locks, which is some twenty times as fast, and claimed
 * by their ids. One that comes before those that were read, because it is more urgent or is tried
 * again, waits for the next read: for a tenth of a second at most, or for ten times what a read
 * takes where that is longer.
 */
export class Queue {
  readonly #kinds: readonly string[]
  #isLong = false
  #walkAgainAt = 0
  #ids: string[] = []
  #freshUntil = 0
  #readMs = 0

  constructor(kinds: readonly string[]) {
    this.#kinds = kinds
  }

  /** Locks up to `limit` jobs of the head, and says whether there may be more. */
  async lock(trx: Transaction<Tables>, limit: number): Promise<{ rows: Claim[]; more: boolean }> {
    const mayWalk =
      !this.#isLong || (performance.now() >= this.#walkAgainAt && this.#readMs < SHORT_READ_MS)
    return mayWalk ? this.#walk(trx, limit) : this.#lockRead(trx, limit)
  }

  async #walk(trx: Transaction<Tables>, limit: number) {
    const startedAt = performance.now()
    const rows = await lockFirst(trx, limit, this.#kinds)
    const endedAt = performance.now()
    this.#isLong = endedAt - startedAt > LONG_WALK_MS
    this.#walkAgainAt = endedAt + RETRY_WALK_MS
    return { rows, more: rows.length === limit }
  }

  /** Others may have taken some of those that were read, or all. */
  async #lockRead(trx: Transaction<Tables>, limit: number) {
    if (this.#ids.length === 0 || performance.now() >= this.#freshUntil) await this.#read(trx)
    let rows: Claim[] = []
    while (rows.length === 0 && this.#ids.length > 0)
      rows = await lockNamed(trx, this.#ids.splice(0, limit))
    return { rows, more: this.#ids.length > 0 }
  }

  async #read(trx: Transaction<Tables>): Promise<void> {
    const startedAt = performance.now()
    this.#ids = await readFirst(trx, READ_AHEAD, this.#kinds)
    const endedAt = performance.now()
    this.#readMs = endedAt - startedAt
    this.#freshUntil = endedAt + Math.max(MIN_FRESH_MS, FRESH_PER_READ * this.#readMs)
  }
}
