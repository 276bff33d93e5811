import { inspect } from 'node:util'
import type { JobState } from './tables.ts'

declare const types: unique symbol

/**
 * Work that outlives a request: a row in the database until it is done. `Input` and `Result` are
 * JSON. Each option is the job's default.
 */
export interface Job<Input, Result> {
  readonly name: string
  readonly [types]?: (input: Input) => Result
  /**
   * How often it is begun at most, by whatever it ended: a failure, a timeout, the death of its
   * process.
   */
  readonly attempts: number
  /** How long one attempt may take before its signal aborts; `Infinity` for no limit. */
  readonly timeoutMs: number
  /** After the nth failure it waits up to `backoffMs * 2 ** (n - 1)`, at random. */
  readonly backoffMs: number
  /**
   * How many of the kind one process runs at once, at most: leaves room for others beside jobs that
   * take long.
   */
  readonly concurrency: number
}

/** What the column holds. */
const MAX_ATTEMPTS = 65_535

/**
 * Names a job: `job<{ id: string }, Summary>('report.build', { attempts: 3 })`.
 *
 * @throws TypeError for a name that is not 1 to 100 ASCII characters without spaces; RangeError for
 * an option out of range.
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
  checkName('a job', name)
  checkOption(
    name,
    { attempts },
    `an integer from 1 to ${MAX_ATTEMPTS}`,
    isIntegerIn(1, MAX_ATTEMPTS),
  )
  checkOption(
    name,
    { timeoutMs },
    'a positive number of milliseconds, or Infinity for no limit',
    (value) => value > 0,
  )
  checkOption(
    name,
    { backoffMs },
    'a positive, finite number of milliseconds',
    (value) => value > 0 && Number.isFinite(value),
  )
  checkOption(
    name,
    { concurrency },
    'a positive integer, or Infinity for no limit',
    isPositiveOrInfinity,
  )
  return Object.freeze({ name, attempts, timeoutMs, backoffMs, concurrency })
}

/** What a handler is given besides its input. */
export interface JobContext {
  id: string
  /**
   * Aborts when the job is cancelled, its time is up, the process stops, or another process has
   * taken the job over.
   */
  signal: AbortSignal
  /**
   * Says how far it is, from 0 to 1, as often as it likes: the newest value is written a few times
   * a second.
   */
  progress(fraction: number, note?: string): void
  /** Of the request that enqueued it. */
  requestId: string | null
  /** 1 at the first time. */
  attempt: number
}

/** A job and what does it; without its types, so that all of them fit one registry. */
export interface JobHandler {
  job: Job<never, unknown>
  run: (input: unknown, context: JobContext) => unknown
}

/** Fires a job at every slot of a cron expression, in UTC, however many processes there are. */
export interface JobSchedule {
  /** Names it in the database: under another name it is another schedule. */
  name: string
  cron: string
  job: Job<never, unknown>
  input: unknown
}

/** What a feature registers: its jobs' handlers, and what is to happen by the clock. */
export interface JobRegistry {
  handlers: JobHandler[]
  schedules: JobSchedule[]
}

/**
 * Says how a job is done. It may be done more than once: when a process dies after the work and
 * before the row says so, another does it again.
 */
export const handle = <Input, Result>(
  job: Job<Input, Result>,
  run: (input: Input, context: JobContext) => Result | Promise<Result>,
): JobHandler => ({ job, run: run as JobHandler['run'] })

/**
 * `schedule('reports.sweep', '0 3 * * *', sweepReports, {})`: every day at 03:00 UTC. It is left
 * out while the job of an earlier slot still waits or runs.
 *
 * @throws TypeError for a name that is not 1 to 100 ASCII characters without spaces.
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

/**
 * The names of jobs and schedules are kept in columns of this width, which ignore spaces at the
 * end.
 */
export const NAME = /^[!-~]{1,100}$/

/** @throws TypeError for a name that its column cannot hold. */
export function checkName(what: string, name: unknown): void {
  if (typeof name !== 'string' || !NAME.test(name))
    throw new TypeError(
      `Expected the name of ${what} to be 1 to 100 ASCII characters without spaces, got ${inspect(name)}`,
    )
}

function checkOption(
  job: string,
  option: Record<string, unknown>,
  expected: string,
  isValid: (value: number) => boolean,
): void {
  const [[name, value] = []] = Object.entries(option)
  if (typeof value === 'number' && isValid(value)) return
  const ErrorType = typeof value === 'number' ? RangeError : TypeError
  throw new ErrorType(
    `Expected \`${name}\` of the job ${job} to be ${expected}, got ${inspect(value)}`,
  )
}

const isPositiveOrInfinity = (value: number) =>
  value === Number.POSITIVE_INFINITY || isIntegerIn(1, Number.MAX_SAFE_INTEGER)(value)

const isIntegerIn = (min: number, max: number) => (value: number) =>
  Number.isInteger(value) && value >= min && value <= max

export const FINISHED = ['succeeded', 'failed', 'cancelled'] as const satisfies JobState[]

export const isFinished = (state: JobState) => (FINISHED as readonly JobState[]).includes(state)

/** What listeners and clients are sent of a job: the same fields as `GET /v1/jobs` has. */
export interface JobChange {
  id: string
  kind: string
  state: JobState
  /** From 0 to 1. */
  progress: number
  note: string | null
  /** How often it was begun, this time included. */
  attempt: number
  /** What people may see of the last failure. */
  error: string | null
}

export const CHANGE_COLUMNS = [
  'id',
  'kind',
  'state',
  'progress',
  'note',
  'attempt',
  'error',
] as const
