import { setTimeout as sleep } from 'node:timers/promises'
import type { IsolationLevel, Transaction } from 'kysely'
import { overloaded } from '../errors.ts'
import type { Db } from './database.ts'
import { isRetryable } from './errors.ts'
import type { Tables } from './tables.ts'

const MAX_ATTEMPTS = 3
const RETRY_DELAY_MS = 20

const hooks = new WeakMap<Transaction<Tables>, (() => void)[]>()

/**
 * Runs `story` in a transaction, and again after a lock conflict: it must do nothing that cannot be
 * done twice. Publish events by `afterCommit`.
 *
 * @throws AppError `overloaded` after three attempts; whatever `story` throws.
 */
export const transaction = <T>(
  db: Db,
  story: (trx: Transaction<Tables>) => Promise<T>,
  isolation?: IsolationLevel,
): Promise<T> =>
  retryLocked(async () => {
    const acts: (() => void)[] = []
    const begin = isolation ? db.transaction().setIsolationLevel(isolation) : db.transaction()
    const result = await begin.execute((trx) => {
      hooks.set(trx, acts)
      return story(trx)
    })
    for (const act of acts) {
      try {
        act()
      } catch (error) {
        process.emitWarning(error as Error)
      }
    }
    return result
  })

/** Runs a single statement as `transaction` does. */
export async function retryLocked<T>(attempt: () => Promise<T>): Promise<T> {
  for (let count = 1; ; count++) {
    try {
      return await attempt()
    } catch (error) {
      if (!isRetryable(error)) throw error
      if (count === MAX_ATTEMPTS)
        throw overloaded('Others are changing the same rows: try again shortly', undefined, error)
      await sleep(Math.random() * RETRY_DELAY_MS * 2 ** count)
    }
  }
}

/**
 * Calls `act` after the commit. An exception becomes a warning.
 *
 * @throws Error for a transaction that `transaction()` did not begin.
 */
export function afterCommit(trx: Transaction<Tables>, act: () => void): void {
  const acts = hooks.get(trx)
  if (!acts) throw new Error('Begin the transaction with transaction() of src/db/transaction.ts')
  acts.push(act)
}
