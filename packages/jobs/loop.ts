import { setTimeout as sleep } from 'node:timers/promises'
import { AppError } from '../../src/errors.ts'
import type { Log } from '../../src/log.ts'

const MIN_BACKOFF_MS = 250

export interface LoopOptions {
  /** What it does, for the log. */
  name: string
  log: Log
  /** How long it rests when there is nothing to do. */
  restMs: number
  /** The longest pause after a turn that failed. */
  maxBackoffMs: number
  /** One turn: true when there is more to do at once. */
  runOnce: () => Promise<boolean>
}

/**
 * Takes turns for as long as the process lives. A turn that fails, as when the database is away, is
 * taken again after a growing, random pause (a short one where it was refused as `overloaded`), and
 * the log hears of it when that begins and when it is over.
 */
export class Loop {
  readonly #options: LoopOptions
  readonly #stopping = new AbortController()
  #rest: AbortController | undefined
  #woken = false
  #failures = 0
  /**
   * Whether the last turn failed only because others were waiting, which says nothing of the
   * database.
   */
  #isOverloaded = false
  #ended: Promise<void> | undefined

  constructor(options: LoopOptions) {
    this.#options = options
  }

  start(): void {
    this.#ended = this.#run()
  }

  /** Takes the next turn now; does not cut short the pause after a failure. */
  wake(): void {
    this.#woken = true
    this.#rest?.abort()
  }

  /** Resolves when the turn that is being taken is over. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    this.#rest?.abort()
    await this.#ended
  }

  async #run(): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      this.#woken = false
      const again = await this.#attempt()
      if (this.#failures > 0)
        await sleep(this.#backoffMs(), undefined, { signal: this.#stopping.signal }).catch(() => {})
      else if (!again && !this.#woken) await this.#takeRest()
    }
  }

  async #attempt(): Promise<boolean> {
    const { name, log, runOnce } = this.#options
    try {
      const again = await runOnce()
      if (this.#failures > 0) log.info({ loop: name, failures: this.#failures }, 'Jobs go on')
      this.#failures = 0
      return again
    } catch (error) {
      this.#isOverloaded = error instanceof AppError && error.code === 'overloaded'
      if (this.#failures++ === 0)
        log.warn({ err: error, loop: name }, 'Jobs cannot go on now: trying again')
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
    await sleep(this.#options.restMs, undefined, { signal: this.#rest.signal }).catch(() => {})
    this.#rest = undefined
  }
}
