import { randomUUIDv7 } from 'node:crypto'
import { inspect } from 'node:util'
import { sql } from 'kysely'
import { JobError } from './errors.ts'
import { type Job, NAME } from './job.ts'
import { type JobState, type Trx, typed } from './tables.ts'

const MAX_INPUT_BYTES = 64 * 1024
const MIN_PRIORITY = -32_768
const MAX_PRIORITY = 32_767
export const MAX_KEY_CHARACTERS = 200
const MAX_RUN_AT = new Date('9999-12-31T23:59:59.999Z')
export const REQUEST_ID = /^[!-~]{1,128}$/
const SUBJECT = /^[!-~]{1,64}$/
const TRACE = /^[!-~]{1,55}$/
const DUPLICATE_KEY = 1062
const MAX_BATCH = 256
/** Servers take 16 MiB at least. */
const MAX_BATCH_BYTES = 4 * 1024 * 1024

export interface EnqueueOptions {
  /** The earliest start, up to the year 9999. */
  runAt?: Date
  /** An integer from -32 768 to 32 767, 0 by default; smaller ones go first. */
  priority?: number
  /** At most 200 characters. An unfinished job of this kind and key is returned instead. */
  dedupeKey?: string
  /** 1 to 128 ASCII characters without spaces. */
  requestId?: string | null
  /** Who enqueues it, in at most 64 such characters. */
  subject?: string | null
  /** Such as a W3C traceparent, in at most 55 such characters. */
  trace?: string | null
}

export type NewJob = ReturnType<typeof toNewJob>

export function toNewJob<Input>(
  { name, queue, attempts, key }: Job<Input, unknown>,
  input: Input,
  options: EnqueueOptions = {},
) {
  const { runAt, priority = 0, dedupeKey, requestId = null, subject = null, trace = null } = options
  if (!Number.isInteger(priority) || priority < MIN_PRIORITY || priority > MAX_PRIORITY)
    throw unexpected(RangeError, 'priority', 'be an integer from -32768 to 32767', priority)
  const expected = (length: number) => `be 1 to ${length} ASCII characters without spaces`
  if (requestId !== null && !REQUEST_ID.test(requestId))
    throw unexpected(TypeError, 'requestId', expected(128), requestId)
  if (subject !== null && !SUBJECT.test(subject))
    throw unexpected(TypeError, 'subject', expected(64), subject)
  if (trace !== null && !TRACE.test(trace))
    throw unexpected(TypeError, 'trace', expected(55), trace)
  return {
    kind: name,
    queue,
    limit_key: key === undefined ? '' : toLimitKey(name, key(input)),
    input: toJson(input, `The input of ${name}`, MAX_INPUT_BYTES),
    max_attempts: attempts,
    priority,
    runAt: runAt === undefined ? null : toColumnDate(runAt),
    dedupe_key: dedupeKey === undefined ? null : toColumnKey(dedupeKey),
    request_id: requestId,
    subject,
    trace,
  }
}

export async function insertJob(
  trx: Trx,
  { runAt, ...columns }: NewJob,
): Promise<{ id: string; state: JobState; isNew: boolean }> {
  const id = randomUUIDv7()
  const dueAt = runAt && sql<Date>`cast(${runAt} as datetime(3))`
  const state = dueAt ? sql<JobState>`if(${dueAt} > now(3), 'scheduled', 'queued')` : 'queued'
  const due_at = dueAt && sql<Date>`if(${dueAt} > now(3), ${dueAt}, null)`
  const inserted = typed(trx).selectFrom('job').select(['id', 'state'])
  try {
    await typed(trx)
      .insertInto('job')
      .values({ id, ...columns, state, due_at })
      .execute()
  } catch (error) {
    const { kind, dedupe_key } = columns
    if (dedupe_key === null || !isKeyTaken(error)) throw error
    const same = inserted.where('kind', '=', kind).where('dedupe_key', '=', dedupe_key)
    // A plain read may see an older snapshot.
    const existing = await same.modifyEnd(sql`lock in share mode`).executeTakeFirstOrThrow()
    return { ...existing, isNew: false }
  }
  if (!runAt) return { id, state: 'queued', isNew: true }
  return { ...(await inserted.where('id', '=', id).executeTakeFirstOrThrow()), isNew: true }
}

export async function insertJobs<Input>(
  trx: Trx,
  job: Job<Input, unknown>,
  inputs: readonly Input[],
  options: EnqueueOptions = {},
): Promise<{ ids: string[]; state: JobState }> {
  const { dedupeKey } = options
  if (dedupeKey !== undefined)
    throw unexpected(TypeError, 'dedupeKey', 'be left out: enqueue such jobs one by one', dedupeKey)
  const jobs = inputs.map((input) => toNewJob(job, input, options))
  const ids = jobs.map(() => randomUUIDv7()).sort()
  const { state, dueAt } = await toStart(trx, jobs[0]?.runAt ?? null)
  const rows = jobs.map(({ runAt: _, ...columns }, index) => ({
    id: ids[index] as string,
    ...columns,
    state,
    due_at: dueAt,
  }))
  for (const batch of inBatches(rows)) await typed(trx).insertInto('job').values(batch).execute()
  return { ids, state }
}

async function toStart(trx: Trx, runAt: Date | null) {
  if (!runAt) return { state: 'queued' as const, dueAt: null }
  const { rows } = await sql<{ isLater: number | string }>`
    select cast(${runAt} as datetime(3)) > now(3) as isLater
  `.execute(trx)
  return Number(rows[0]?.isLater) === 1
    ? { state: 'scheduled' as const, dueAt: runAt }
    : { state: 'queued' as const, dueAt: null }
}

/** Powers of two: the server keeps every statement that it prepared. */
function* inBatches<Row extends { input: string }>(rows: readonly Row[]): Iterable<Row[]> {
  for (let start = 0, size = 0; start < rows.length; start += size) {
    size = MAX_BATCH
    const bytes = (count: number) =>
      rows.slice(start, start + count).reduce((sum, { input }) => sum + Buffer.byteLength(input), 0)
    while (size > rows.length - start || (size > 1 && bytes(size) > MAX_BATCH_BYTES)) size /= 2
    yield rows.slice(start, start + size)
  }
}

const isKeyTaken = (error: unknown) =>
  error instanceof Error &&
  (error as { errno?: unknown }).errno === DUPLICATE_KEY &&
  /for key '(\w+\.)?job_dedupe'$/.test(error.message)

function toLimitKey(name: string, key: unknown): string {
  if (typeof key === 'string' && NAME.test(key)) return key
  const expected = '1 to 100 ASCII characters without spaces'
  const text = `Expected \`key\` of the job ${name} to return ${expected}, got ${inspect(key)}`
  throw new TypeError(text)
}

function toColumnDate(runAt: unknown): Date {
  if (!(runAt instanceof Date) || Number.isNaN(runAt.getTime()))
    throw unexpected(TypeError, 'runAt', 'be a valid Date', runAt)
  if (runAt > MAX_RUN_AT) throw unexpected(RangeError, 'runAt', 'be before the year 10000', runAt)
  return new Date(Math.max(0, runAt.getTime()))
}

/** The column ignores trailing spaces: such keys get a bar, as do those that end in one. */
export const encodeKey = (key: string) => (/[ |]$/.test(key) ? `${key}|` : key)

export const decodeKey = (column: string) => column.replace(/\|$/, '')

function toColumnKey(key: unknown): string {
  // A lone surrogate would equal any other.
  if (typeof key !== 'string' || !key.isWellFormed())
    throw unexpected(TypeError, 'dedupeKey', 'be a string without lone surrogates', key)
  const column = encodeKey(key)
  const { length } = [...column]
  if (length <= MAX_KEY_CHARACTERS) return column
  throw unexpected(RangeError, 'dedupeKey', `have at most ${MAX_KEY_CHARACTERS} characters`, length)
}

const unexpected = (
  ErrorType: typeof TypeError | typeof RangeError,
  option: string,
  expected: string,
  value: unknown,
) => new ErrorType(`Expected \`${option}\` to ${expected}, got ${inspect(value)}`)

/** @throws TypeError for what JSON cannot represent; JobError `too_large`. Neither is retryable. */
export function toJson(value: unknown, what: string, maxBytes: number): string {
  const text = value === undefined ? 'null' : stringify(value, what)
  const bytes = Buffer.byteLength(text)
  if (bytes <= maxBytes) return text
  const size = `${bytes} bytes as JSON, the most is ${maxBytes}`
  const message = `${what} has ${size}: keep large data elsewhere`
  throw new JobError('too_large', message, { retryable: false })
}

function stringify(value: unknown, what: string): string {
  let cause: unknown
  try {
    const text: string | undefined = JSON.stringify(value)
    if (text !== undefined) return text
  } catch (error) {
    cause = error
  }
  const error = new TypeError(`${what} cannot be written as JSON`, { cause })
  throw Object.assign(error, { retryable: false })
}
