import { setTimeout as sleep } from 'node:timers/promises'

/** Times in milliseconds, overridden only by tests. */
export const TIMING = {
  leaseMs: 30_000,
  heartbeatMs: 10_000,
  /** How often jobs are looked for. */
  pollMs: 500,
  /** How often claims are checked, and progress is written. */
  watchMs: 250,
  /** How often jobs are pruned, parked and returned. */
  cleanUpMs: 10_000,
  /** As long as passing a hundred thousand old entries of an index. */
  slowReadMs: 5,
  maxBackoffMs: 5_000,
  /** On stop: for running jobs, then again for aborted ones. */
  graceMs: 1_000,
  bulkMs: 2_000,
}

export type Timing = typeof TIMING

export interface Log {
  info(fields: object, text: string): void
  warn(fields: object, text: string): void
  error(fields: object, text: string): void
}

export interface LoopOptions {
  name: string
  log: Log
  restMs: number
  maxBackoffMs: number
  /** Resolves with whether there is more to do at once. */
  runOnce(): Promise<boolean>
}

const MIN_BACKOFF_MS = 250

/** Calls `runOnce` until stopped. Pauses longer after each failure but `overloaded`. */
export class Loop {
  readonly #options: LoopOptions
  readonly #stopping = new AbortController()
  #waking = new AbortController()
  #failures = 0
  #isOverloaded = false
  #ended: Promise<void> | undefined

  constructor(options: LoopOptions) {
    this.#options = options
  }

  start(): void {
    this.#ended = this.#run()
  }

  /** Takes the next turn now, unless it pauses after a failure. */
  wake(): void {
    this.#waking.abort()
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    this.wake()
    await this.#ended
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping
    while (!signal.aborted) {
      this.#waking = new AbortController()
      const more = await this.#tryOnce()
      if (this.#failures > 0) await pause(this.#backoffMs(), signal)
      else if (!more) await pause(this.#options.restMs, this.#waking.signal)
    }
  }

  async #tryOnce(): Promise<boolean> {
    const { name: loop, log, runOnce } = this.#options
    try {
      const more = await runOnce()
      if (this.#failures > 0) log.info({ loop, failures: this.#failures }, 'Job loop recovered')
      this.#failures = 0
      return more
    } catch (error) {
      this.#isOverloaded = (error as { code?: unknown } | undefined)?.code === 'overloaded'
      if (this.#failures++ === 0) log.warn({ err: error, loop }, 'Job loop failed, retrying')
      return false
    }
  }

  #backoffMs(): number {
    const maxMs = this.#isOverloaded ? MIN_BACKOFF_MS : this.#options.maxBackoffMs
    return Math.min(MIN_BACKOFF_MS * 2 ** this.#failures, maxMs) * (0.5 + Math.random() / 2)
  }
}

const pause = (ms: number, signal: AbortSignal) =>
  sleep(ms, undefined, { signal }).catch(() => undefined)
