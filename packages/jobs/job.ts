import { inspect } from 'node:util'
import type { JobState } from './tables.ts'

declare const types: unique symbol

/** Work that outlives a request. `Input` and `Result` are JSON. */
export interface Job<Input, Result> {
  readonly name: string
  readonly [types]?: (input: Input) => Result
  /** Maximum attempts, 5 by default. Failures, timeouts and lost processes all count. */
  readonly attempts: number
  /** When an attempt's signal aborts; 10 min by default, `Infinity` for no limit. */
  readonly timeoutMs: number
  /** The nth retry waits a random time up to `backoffMs * 2 ** (n - 1)`; 1 s by default. */
  readonly backoffMs: number
  /** Maximum at once in each process; no limit by default. */
  readonly concurrency: number
}

const MAX_ATTEMPTS = 65_535

/**
 * Declares a job: `job<{ id: string }, Receipt>('mail.send', { attempts: 3 })`.
 *
 * @throws TypeError for an invalid name; RangeError for an option out of range.
 */
export function job<Input, Result = void>(
  name: string,
  {
    attempts = 5,
    timeoutMs = 600_000,
    backoffMs = 1_000,
    concurrency = Number.POSITIVE_INFINITY,
  }: Partial<Omit<Job<Input, Result>, 'name'>> = {},
): Job<Input, Result> {
  const check = (option: string, value: number, isValid: boolean, expected: string) => {
    if (typeof value === 'number' && isValid) return
    const subject = `\`${option}\` of the job ${name}`
    const message = `Expected ${subject} to be ${expected}, got ${inspect(value)}`
    throw typeof value === 'number' ? new RangeError(message) : new TypeError(message)
  }
  const isCount = (value: number) => Number.isInteger(value) && value >= 1
  checkName('a job', name)
  const hasAttempts = isCount(attempts) && attempts <= MAX_ATTEMPTS
  check('attempts', attempts, hasAttempts, `an integer from 1 to ${MAX_ATTEMPTS}`)
  const limit = 'a positive number of milliseconds, or Infinity for no limit'
  check('timeoutMs', timeoutMs, timeoutMs > 0, limit)
  const isPause = backoffMs > 0 && Number.isFinite(backoffMs)
  check('backoffMs', backoffMs, isPause, 'a positive, finite number of milliseconds')
  const hasPlaces = concurrency === Number.POSITIVE_INFINITY || isCount(concurrency)
  check('concurrency', concurrency, hasPlaces, 'a positive integer, or Infinity for no limit')
  return Object.freeze({ name, attempts, timeoutMs, backoffMs, concurrency })
}

export const NAME = /^[!-~]{1,100}$/

function checkName(what: string, name: unknown): void {
  if (typeof name === 'string' && NAME.test(name)) return
  const expected = '1 to 100 ASCII characters without spaces'
  throw new TypeError(`Expected the name of ${what} to be ${expected}, got ${inspect(name)}`)
}

export const findDuplicate = (names: readonly string[]) =>
  names.find((name, index) => names.indexOf(name) !== index)

export interface JobContext {
  id: string
  kind: string
  /** Aborts on cancellation, timeout and shutdown, and when another process took the job over. */
  signal: AbortSignal
  /** Reports progress from 0 to 1, written a few times a second. */
  progress(fraction: number, note?: string): void
  requestId: string | null
  /** Who enqueued it; null for a schedule. */
  subject: string | null
  /** Of who enqueued it. */
  trace: string | null
  attempt: number
}

export interface JobHandler {
  job: Job<never, unknown>
  run(input: unknown, context: JobContext): unknown
}

/** Declares a job's handler. It may run twice if a process dies. */
export const handle = <Input, Result>(
  job: Job<Input, Result>,
  run: (input: Input, context: JobContext) => Result | Promise<Result>,
): JobHandler => ({ job, run: run as JobHandler['run'] })

export interface JobSchedule {
  name: string
  cron: string
  job: Job<never, unknown>
  input: unknown
}

/**
 * `schedule('carts.sweep', '0 3 * * *', sweepCarts, {})`: daily at 03:00 UTC, in one process. A
 * slot is skipped while the job of an earlier one is unfinished.
 *
 * @throws TypeError for an invalid name.
 */
export function schedule<Input>(
  name: string,
  cron: string,
  job: Job<Input, unknown>,
  input: Input,
): JobSchedule {
  checkName('a schedule', name)
  return { name, cron, job, input }
}

export interface JobChange {
  id: string
  kind: string
  state: JobState
  progress: number
  note: string | null
  attempt: number
  /** The public text of the last failure. */
  error: string | null
}

export const FINISHED = ['succeeded', 'failed', 'cancelled'] as const satisfies JobState[]

export const UNFINISHED = ['scheduled', 'queued', 'running'] as const satisfies JobState[]

export const RETRYABLE = ['failed', 'cancelled'] as const satisfies JobState[]

export const STATES = [...UNFINISHED, ...FINISHED] as const

export const isFinished = (state: JobState) => (FINISHED as readonly JobState[]).includes(state)
