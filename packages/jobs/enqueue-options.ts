import { inspect } from 'node:util'
import type { Job } from './job.ts'
import { toJson } from './json.ts'
import type { NewJob } from './queries.ts'

const MAX_INPUT_BYTES = 64 * 1024
const MIN_PRIORITY = -32_768
const MAX_PRIORITY = 32_767
const MAX_KEY_CHARACTERS = 200
const MAX_RUN_AT = new Date('9999-12-31T23:59:59.999Z')
const REQUEST_ID = /^[!-~]{1,128}$/

export interface EnqueueOptions {
  /** Not before this time; up to the year 9999. */
  runAt?: Date
  /** Smaller ones go first; 0 if absent. An integer from -32 768 to 32 767. */
  priority?: number
  /**
   * While a job of the kind with this key is unfinished, no other is made: its id is given back
   * instead. At most 200 characters; keys are the same only if all of their characters are, spaces
   * at the end included.
   */
  dedupeKey?: string
  /** 1 to 128 ASCII characters without spaces. */
  requestId?: string | null
}

/**
 * The row of a job that is to be queued.
 *
 * @throws TypeError or RangeError for an option that its column cannot hold, TypeError for an input
 * that JSON cannot say; AppError `too_large`.
 */
export function toNewJob<Input>(
  { name, attempts }: Job<Input, unknown>,
  input: Input,
  { runAt, priority = 0, dedupeKey, requestId = null }: EnqueueOptions,
): NewJob {
  if (!Number.isInteger(priority) || priority < MIN_PRIORITY || priority > MAX_PRIORITY)
    throw new RangeError(
      `Expected \`priority\` to be an integer from -32768 to 32767, got ${inspect(priority)}`,
    )
  if (requestId !== null && !REQUEST_ID.test(requestId))
    throw new TypeError(
      `Expected \`requestId\` to be 1 to 128 ASCII characters without spaces, got ${inspect(requestId)}`,
    )
  return {
    kind: name,
    input: toJson(input, `The input of ${name}`, MAX_INPUT_BYTES),
    maxAttempts: attempts,
    priority,
    runAt: runAt === undefined ? null : toColumnDate(runAt),
    dedupeKey: dedupeKey === undefined ? null : toColumnKey(dedupeKey),
    requestId,
  }
}

/** Times before 1970 are as good as that one: the job is due. */
function toColumnDate(runAt: unknown): Date {
  if (!(runAt instanceof Date) || Number.isNaN(runAt.getTime()))
    throw new TypeError(`Expected \`runAt\` to be a valid Date, got ${inspect(runAt)}`)
  if (runAt > MAX_RUN_AT)
    throw new RangeError(`Expected \`runAt\` to be before the year 10000, got ${inspect(runAt)}`)
  return new Date(Math.max(0, runAt.getTime()))
}

/**
 * The column's collation ignores spaces at the end of a key. A key that ends with one is kept with
 * a bar behind it, and so is one that ends with a bar, so that no two keys become the same.
 */
function toColumnKey(key: unknown): string {
  // A lone surrogate would become U+FFFD on its way to the database, and equal any other.
  if (typeof key !== 'string' || !key.isWellFormed())
    throw new TypeError(
      `Expected \`dedupeKey\` to be a string without lone surrogates, got ${inspect(key)}`,
    )
  const kept = /[ |]$/.test(key) ? `${key}|` : key
  if ([...kept].length > MAX_KEY_CHARACTERS)
    throw new RangeError(
      `Expected \`dedupeKey\` to have at most ${MAX_KEY_CHARACTERS} characters, got ${[...kept].length}`,
    )
  return kept
}
