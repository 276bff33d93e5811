import { setTimeout as sleep } from 'node:timers/promises'
import type { Transaction } from 'kysely'
import { AppError } from '../errors.ts'
import type { Db } from './database.ts'
import { isRetryable } from './errors.ts'
import type { Tables } from './tables.ts'

const MAX_ATTEMPTS = 3
const RETRY_DELAY_MS = 20

/**
 * Runs `story` in a transaction; commits when it resolves, rolls back when it throws. Two transactions that lock each
 * other out are an everyday event: the one that loses is run again from its start, so a story does nothing that cannot
 * be done twice (events are emitted after it returns).
 *
 * @throws AppError `saturated` when it lost three times; whatever `story` throws.
 */
export async function transaction<T>(db: Db, story: (trx: Transaction<Tables>) => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await db.transaction().execute(story)
    } catch (error) {
      if (!isRetryable(error)) throw error
      if (attempt === MAX_ATTEMPTS)
        throw new AppError('saturated', 'Others are changing the same rows: try again shortly', { cause: error, retryAfter: 1 })
      await sleep(Math.random() * RETRY_DELAY_MS * 2 ** attempt)
    }
  }
}
