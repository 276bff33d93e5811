import { AppError } from '../errors.ts'

const CHECK_TIMEOUT_MS = 1_000

/** Rejects when the service cannot do its work. */
type Check = (signal: AbortSignal) => Promise<void>

/** Whether the service should get traffic; if not, why, and what is behind that. */
export type ReadinessAnswer = { ready: true } | { ready: false; reason: string; cause?: unknown }

/**
 * Finds out, whenever somebody asks, whether the service should get traffic: not before it listens,
 * nor once it stops.
 */
export class Readiness {
  readonly #stopping: AbortSignal
  #check: Check | undefined
  #checking: Promise<ReadinessAnswer> | undefined

  constructor(stopping: AbortSignal) {
    this.#stopping = stopping
  }

  /** From here on it is ready while `check` resolves. */
  begin(check: Check): void {
    this.#check = check
  }

  /** However many ask at once, the check runs once. */
  find = async (): Promise<ReadinessAnswer> => {
    if (this.#stopping.aborted) return { ready: false, reason: 'The service is stopping' }
    if (!this.#check) return { ready: false, reason: 'The service is starting' }
    this.#checking ??= run(this.#check).finally(() => {
      this.#checking = undefined
    })
    return this.#checking
  }
}

async function run(check: Check): Promise<ReadinessAnswer> {
  try {
    await check(AbortSignal.timeout(CHECK_TIMEOUT_MS))
    return { ready: true }
  } catch (cause) {
    if (cause instanceof AppError)
      return { ready: false, reason: cause.message, cause: cause.cause }
    return { ready: false, reason: 'The database does not answer', cause }
  }
}
