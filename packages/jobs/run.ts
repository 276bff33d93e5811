import { setTimeout as sleep } from 'node:timers/promises'
import { AppError } from '../../src/errors.ts'
import { startTimer } from '../../src/timers.ts'
import type { JobContext, JobHandler } from './job.ts'
import { toJson } from './json.ts'
import type { Claim, Outcome } from './record.ts'

const MAX_RESULT_BYTES = 4 * 1024 * 1024
const MAX_BACKOFF_MS = 600_000
const MAX_NOTE_CHARACTERS = 200
const MAX_ERROR_CHARACTERS = 1_000
const MAX_DETAIL_CHARACTERS = 4_000
/** What a handler gets to end after its time was up, before the job counts as failed without it. */
const SETTLE_MS = 1_000

/** How an attempt ended, and the error if it was one. */
interface Verdict {
  outcome: Outcome
  error?: unknown
}

/** One attempt at a job, in this process. */
export class Run {
  readonly claim: Claim
  readonly #handler: JobHandler
  readonly #controller = new AbortController()
  #judged = false
  #progress: { fraction: number; note: string | null } | undefined

  constructor(claim: Claim, handler: JobHandler) {
    this.claim = claim
    this.#handler = handler
  }

  get aborted(): boolean {
    return this.#controller.signal.aborted
  }

  /** Whether there is nothing more to hear of it: it was told to end, or has ended. */
  get over(): boolean {
    return this.#judged || this.aborted
  }

  abort(reason: AppError): void {
    this.#controller.abort(reason)
  }

  /** What the handler said of its progress since it was last asked. */
  takeProgress() {
    const progress = this.#progress
    this.#progress = undefined
    return progress
  }

  /**
   * Runs the handler and says how the attempt ended. `settled` is when the handler itself ended:
   * one that does not listen to its signal may go on after its time was up, and takes its place all
   * the while.
   */
  start(): { verdict: Promise<Verdict>; settled: Promise<unknown> } {
    const { timeoutMs } = this.#handler.job
    const timeout = () =>
      this.abort(new AppError('deadline_exceeded', `It was not done within ${timeoutMs} ms`))
    const timer = startTimer(timeoutMs, timeout)
    const result = Promise.try(() =>
      this.#handler.run(JSON.parse(this.claim.input), this.#context()),
    )
    const settled = result.then(
      () => clearTimeout(timer),
      () => clearTimeout(timer),
    )
    return { verdict: this.#judge(Promise.race([result, this.#deaf(settled)])), settled }
  }

  async #judge(result: Promise<unknown>): Promise<Verdict> {
    try {
      const what = `The result of ${this.claim.kind}`
      return {
        outcome: { state: 'succeeded', result: toJson(await result, what, MAX_RESULT_BYTES) },
      }
    } catch (error) {
      return { outcome: this.#failure(error), error }
    } finally {
      this.#judged = true
    }
  }

  /** Rejects when the handler is still at it some time after it was told to end. */
  async #deaf(settled: Promise<unknown>): Promise<never> {
    const { signal } = this.#controller
    await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
    await Promise.race([settled, sleep(SETTLE_MS)])
    throw signal.reason
  }

  #context(): JobContext {
    const { id, requestId, attempt } = this.claim
    const progress = (fraction: number, note?: string) => {
      this.#progress = {
        fraction: Math.min(Math.max(fraction, 0), 1) || 0,
        note: note?.slice(0, MAX_NOTE_CHARACTERS) ?? null,
      }
    }
    return { id, requestId, attempt, signal: this.#controller.signal, progress }
  }

  #failure(error: unknown): Outcome {
    const { attempt, maxAttempts } = this.claim
    const texts = { error: publicText(error), detail: detailOf(error) }
    if (attempt >= maxAttempts || !isRetryable(error)) return { state: 'failed', ...texts }
    const delayMs =
      Math.random() * Math.min(this.#handler.job.backoffMs * 2 ** (attempt - 1), MAX_BACKOFF_MS)
    return { state: 'scheduled', delayMs, ...texts }
  }
}

export const isRetryable = (error: unknown) =>
  (error as { retryable?: unknown } | undefined)?.retryable !== false

/** An AppError is written for people; what else goes wrong is not their business. */
const publicText = (error: unknown) =>
  (error instanceof AppError ? error.message : 'Something went wrong on our side').slice(
    0,
    MAX_ERROR_CHARACTERS,
  )

function detailOf(error: unknown): string {
  const cause = error instanceof Error && error.cause ? `; ${String(error.cause)}` : ''
  return `${String(error)}${cause}`.slice(0, MAX_DETAIL_CHARACTERS)
}
