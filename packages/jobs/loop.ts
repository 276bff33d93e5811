import { setTimeout as sleep } from 'node:timers/promises'

/** How long things take, in milliseconds. Only tests have others than these. */
export interface Timing {
  /** How long a claim is valid after its worker last renewed it. */
  leaseMs: number
  /** How often a worker renews its leases. */
  heartbeatMs: number
  /** How often each process looks for jobs that others queued, that are due, or orphaned. */
  pollMs: number
  /** How often a worker checks that it still holds its jobs, and writes their progress. */
  watchMs: number
  /** The longest pause after a failure, as when the database is away. */
  maxBackoffMs: number
  /** On stop: how long jobs may continue, and then how long aborted ones have to end. */
  graceMs: number
}

export const TIMING: Timing = {
  leaseMs: 30_000,
  heartbeatMs: 10_000,
  pollMs: 500,
  watchMs: 250,
  maxBackoffMs: 5_000,
  graceMs: 1_000,
}

/** Pino's fits. */
export interface Log {
  info(fields: object, text: string): void
  warn(fields: object, text: string): void
  error(fields: object, text: string): void
}

export interface LoopOptions {
  /** For the log. */
  name: string
  log: Log
  /** The pause when there is nothing to do. */
  restMs: number
  /** The longest pause after a turn that failed. */
  maxBackoffMs: number
  /** One turn; resolves with whether there is more to do at once. */
  runOnce(): Promise<boolean>
}

const MIN_BACKOFF_MS = 250

/**
 * Calls `runOnce` until it is stopped. A turn that fails is repeated after a growing, random pause,
 * which stays short if the error's code is `overloaded`: that says nothing of the database. The
 * first of several failures and the recovery are logged.
 */
export class Loop {
  readonly #options: LoopOptions
  readonly #stopping = new AbortController()
  #rest: AbortController | undefined
  #woken = false
  #failures = 0
  #isOverloaded = false
  #ended: Promise<void> | undefined

  constructor(options: LoopOptions) {
    this.#options = options
  }

  start(): void {
    this.#ended = this.#run()
  }

  /** Takes the next turn now; does not shorten the pause after a failure. */
  wake(): void {
    this.#woken = true
    this.#rest?.abort()
  }

  /** Resolves when the current turn has ended. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    this.#rest?.abort()
    await this.#ended
  }

  async #run(): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      this.#woken = false
      const more = await this.#tryOnce()
      if (this.#failures > 0) await pause(this.#backoffMs(), this.#stopping.signal)
      else if (!more && !this.#woken) await this.#takeRest()
    }
  }

  async #tryOnce(): Promise<boolean> {
    const { name, log, runOnce } = this.#options
    try {
      const more = await runOnce()
      if (this.#failures > 0)
        log.info({ loop: name, failures: this.#failures }, 'Job loop recovered')
      this.#failures = 0
      return more
    } catch (error) {
      this.#isOverloaded = (error as { code?: unknown } | undefined)?.code === 'overloaded'
      if (this.#failures++ === 0) log.warn({ err: error, loop: name }, 'Job loop failed, retrying')
      return false
    }
  }

  #backoffMs(): number {
    const maxBackoffMs = this.#isOverloaded ? MIN_BACKOFF_MS : this.#options.maxBackoffMs
    const backoffMs = Math.min(MIN_BACKOFF_MS * 2 ** this.#failures, maxBackoffMs)
    return backoffMs * (0.5 + Math.random() / 2)
  }

  async #takeRest(): Promise<void> {
    if (this.#stopping.signal.aborted) return
    this.#rest = new AbortController()
    await pause(this.#options.restMs, this.#rest.signal)
    this.#rest = undefined
  }
}

const pause = (ms: number, signal: AbortSignal) =>
  sleep(ms, undefined, { signal }).catch(() => undefined)
