import { AppError } from '../errors.ts'

const CHECK_TIMEOUT_MS = 1_000

type ReadinessAnswer = { ready: true } | { ready: false; reason: string; cause?: unknown }

/** Decides whether the service should get traffic; the ops port tells. */
export class Readiness {
  readonly #stopping: AbortSignal
  #check: ((signal: AbortSignal) => Promise<void>) | undefined
  #checking: Promise<ReadinessAnswer> | undefined

  constructor(stopping: AbortSignal) {
    this.#stopping = stopping
  }

  begin(check: (signal: AbortSignal) => Promise<void>): void {
    this.#check = check
  }

  /** Concurrent calls share one check. */
  find = async (): Promise<ReadinessAnswer> => {
    if (this.#stopping.aborted) return { ready: false, reason: 'The service is stopping' }
    if (!this.#check) return { ready: false, reason: 'The service is starting' }
    this.#checking ??= this.#check(AbortSignal.timeout(CHECK_TIMEOUT_MS))
      .then(() => ({ ready: true }) as const, toAnswer)
      .finally(() => {
        this.#checking = undefined
      })
    return this.#checking
  }
}

const toAnswer = (cause: unknown): ReadinessAnswer =>
  cause instanceof AppError
    ? { ready: false, reason: cause.message, cause: cause.cause }
    : { ready: false, reason: 'The database does not answer', cause }
