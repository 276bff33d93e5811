import { inspect } from 'node:util'
import type { JobState } from './tables.ts'

declare const types: unique symbol

/** Work that outlives a request. `Input` and `Result` are JSON. */
export interface Job<Input, Result> {
  readonly name: string
  readonly [types]?: (input: Input) => Result
  /** 1 to 100 letters, digits, `_`, `.` and `-`; `default` by default. */
  readonly queue: string
  /** 5 by default. Failures, timeouts and lost processes all count. */
  readonly attempts: number
  /** When an attempt's signal aborts; 10 min by default, `Infinity` for no limit. */
  readonly timeoutMs: number
  /** The nth retry waits a random time up to `backoffMs * 2 ** (n - 1)`; 1 s by default. */
  readonly backoffMs: number
  /** Maximum at once in all processes together; no limit by default. */
  readonly limit: number
  /** Jobs take turns by it, such as a customer's id: 1 to 100 ASCII characters without spaces. */
  readonly key: ((input: Input) => string) | undefined
  /** The `limit` of each key. */
  readonly limitPerKey: number
  /** Maximum starts in any `perMs` in all processes together. */
  readonly rate: Rate | undefined
}

export interface Rate {
  readonly count: number
  readonly perMs: number
}

const MAX_ATTEMPTS = 65_535
const MIN_RATE_MS = 1_000

/**
 * Declares a job: `job<{ id: string }, Receipt>('mail.send', { queue: 'mail', attempts: 3 })`.
 *
 * @throws TypeError for an invalid name, queue or key; RangeError for a number out of range.
 */
export function job<Input, Result = void>(
  name: string,
  {
    queue = 'default',
    attempts = 5,
    timeoutMs = 600_000,
    backoffMs = 1_000,
    limit = Number.POSITIVE_INFINITY,
    key,
    limitPerKey = Number.POSITIVE_INFINITY,
    rate,
  }: Partial<Omit<Job<Input, Result>, 'name'>> = {},
): Job<Input, Result> {
  const refuse = (
    ErrorType: typeof TypeError,
    option: string,
    expected: string,
    value: unknown,
  ) => {
    const subject = `\`${option}\` of the job ${name}`
    throw new ErrorType(`Expected ${subject} to be ${expected}, got ${inspect(value)}`)
  }
  const check = (option: string, value: unknown, isValid: boolean, expected: string) => {
    if (typeof value === 'number' && isValid) return
    refuse(typeof value === 'number' ? RangeError : TypeError, option, expected, value)
  }
  const isCount = (value: number) => Number.isInteger(value) && value >= 1
  checkName('a job', name)
  if (typeof queue !== 'string' || !QUEUE.test(queue)) refuse(TypeError, 'queue', QUEUE_FORM, queue)
  const hasAttempts = isCount(attempts) && attempts <= MAX_ATTEMPTS
  check('attempts', attempts, hasAttempts, `an integer from 1 to ${MAX_ATTEMPTS}`)
  const time = 'a positive number of milliseconds, or Infinity for no limit'
  check('timeoutMs', timeoutMs, timeoutMs > 0, time)
  const isPause = backoffMs > 0 && Number.isFinite(backoffMs)
  check('backoffMs', backoffMs, isPause, 'a positive, finite number of milliseconds')
  for (const [option, value] of Object.entries({ limit, limitPerKey })) {
    const isLimit = value === Number.POSITIVE_INFINITY || isCount(value)
    check(option, value, isLimit, 'a positive integer, or Infinity for no limit')
  }
  if (key !== undefined && typeof key !== 'function')
    refuse(TypeError, 'key', 'a function from input to key', key)
  if (limitPerKey !== Number.POSITIVE_INFINITY && !key)
    refuse(TypeError, 'key', 'a function from input to key, because it has `limitPerKey`', key)
  if (rate !== undefined) checkRate(check, rate)
  const limits = { limit, key, limitPerKey, rate: rate && Object.freeze({ ...rate }) }
  return Object.freeze({ name, queue, attempts, timeoutMs, backoffMs, ...limits })
}

function checkRate(
  check: (option: string, value: unknown, isValid: boolean, expected: string) => void,
  rate: Rate,
): void {
  const { count, perMs } = rate
  check('rate.count', count, Number.isInteger(count) && count >= 1, 'a positive integer')
  const isTime = perMs >= MIN_RATE_MS && Number.isFinite(perMs)
  check('rate.perMs', perMs, isTime, `a finite number of milliseconds of at least ${MIN_RATE_MS}`)
}

export const hasLimits = ({ limit, key, rate }: Job<never, unknown>) =>
  limit !== Number.POSITIVE_INFINITY || key !== undefined || rate !== undefined

/** Fit for a setting and a path. */
export const QUEUE = /^[\w.-]{1,100}$/
export const QUEUE_FORM = '1 to 100 letters, digits, `_`, `.` and `-`'

const MAX_NAME = 100
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
  trace: string | null
  attempt: number
}

export interface JobHandler {
  job: Job<never, unknown>
  run(input: unknown, context: JobContext): unknown
  onFailed?: FailureHandler<unknown> | undefined
}

/** `context.id` is the failed job's, `error` the public text of its last failure. */
export type FailureHandler<Input> = (input: Input, context: JobContext, error: string) => unknown

/**
 * Declares a job's handler. It may run twice if a process dies.
 *
 * @param options `onFailed` runs once the job failed for good, as a job `NAME:failed` of its own.
 * @throws RangeError if the name leaves no room for that.
 */
export function handle<Input, Result>(
  job: Job<Input, Result>,
  run: (input: Input, context: JobContext) => Result | Promise<Result>,
  { onFailed }: { onFailed?: FailureHandler<Input> } = {},
): JobHandler {
  if (onFailed && !NAME.test(toFailureName(job.name))) {
    const { length } = job.name
    const most = MAX_NAME - toFailureName('').length
    const expected = `Expected the name of a job with \`onFailed\` to have at most ${most}`
    throw new RangeError(`${expected} characters, got ${length}: ${job.name}`)
  }
  return { job, run: run as JobHandler['run'], onFailed: onFailed as JobHandler['onFailed'] }
}

export const toFailureName = (kind: string) => `${kind}:failed`

export interface Failure {
  id: string
  error: string
  input: unknown
}

export const FAILURE_ATTEMPTS = 20

export const withFailureHandlers = (handlers: readonly JobHandler[]) =>
  handlers.flatMap((handler) => {
    const { job: failed, onFailed } = handler
    if (!onFailed) return [handler]
    const options = { queue: failed.queue, attempts: FAILURE_ATTEMPTS }
    const failure = job<Failure>(toFailureName(failed.name), options)
    const call = async ({ id, error, input }: Failure, context: JobContext) => {
      await onFailed(input, { ...context, id }, error)
    }
    return [handler, handle(failure, call)]
  })

export interface JobSchedule {
  name: string
  cron: string
  timeZone: string
  job: Job<never, unknown>
  input: unknown
}

/**
 * `schedule('carts.sweep', '0 3 * * *', sweepCarts, {}, { timeZone: 'Europe/Berlin' })`: daily at
 * 03:00, in one process. A slot is skipped while the job of an earlier one is unfinished.
 *
 * @throws TypeError for an invalid name; RangeError for an unknown time zone.
 */
export function schedule<Input>(
  name: string,
  cron: string,
  job: Job<Input, unknown>,
  input: Input,
  { timeZone = 'UTC' }: { timeZone?: string } = {},
): JobSchedule {
  checkName('a schedule', name)
  try {
    new Intl.DateTimeFormat('en', { timeZone })
  } catch {
    const expected = 'an IANA time zone such as Europe/Berlin'
    const subject = `\`timeZone\` of the schedule ${name}`
    throw new RangeError(`Expected ${subject} to be ${expected}, got ${inspect(timeZone)}`)
  }
  return { name, cron, timeZone, job, input }
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

/** For metrics of what this process did. */
export interface JobObserver {
  /** An attempt began, so long after its job was queued. */
  started(kind: string, waitMs: number): void
  ended(kind: string, runMs: number): void
  failed(kind: string): void
}

export const FINISHED = ['succeeded', 'failed', 'cancelled'] as const satisfies JobState[]

export const UNFINISHED = ['scheduled', 'queued', 'running', 'parked'] as const satisfies JobState[]

export const RETRYABLE = ['failed', 'cancelled', 'parked'] as const satisfies JobState[]

export const STATES = [...UNFINISHED, ...FINISHED] as const

export const isFinished = (state: JobState) => (FINISHED as readonly JobState[]).includes(state)
