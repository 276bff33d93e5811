import { performance } from 'node:perf_hooks'
import type { Log } from '../../src/log.ts'
import type { JobChange } from './job.ts'
import { UPKEEP_BATCH } from './locks.ts'
import { Loop } from './loop.ts'
import type { Schedules } from './schedules.ts'
import type { JobStore } from './store.ts'
import type { Timing } from './timing.ts'

export interface KeeperOptions {
  store: JobStore
  schedules: Schedules
  log: Log
  timing: Timing
  onChange: (changes: readonly JobChange[]) => void
}

/**
 * What has to happen to jobs by the clock, whichever engine delivers them: those that are due are
 * queued, those that lost their worker are taken back, schedules are fired. Every process does it;
 * the rows' locks see to it that each thing is done once.
 */
export class Keeper {
  readonly #options: KeeperOptions
  readonly #loop: Loop
  #lastAt = Number.NEGATIVE_INFINITY
  #reclaimsFrom = 0

  constructor(options: KeeperOptions) {
    const { log, timing } = options
    const { pollMs, maxBackoffMs } = timing
    this.#options = options
    this.#loop = new Loop({
      name: 'keep',
      log,
      restMs: pollMs,
      maxBackoffMs,
      runOnce: () => this.#runOnce(),
    })
  }

  start(): void {
    this.#loop.start()
  }

  stop(): Promise<void> {
    return this.#loop.stop()
  }

  async #runOnce(): Promise<boolean> {
    const { store, schedules, onChange } = this.#options
    const promoted = await store.promote()
    onChange(promoted)
    const reclaimed = this.#mayReclaim() ? await store.reclaim() : []
    onChange(reclaimed)
    await schedules.fire()
    return Math.max(promoted.length, reclaimed.length) >= UPKEEP_BATCH
  }

  /**
   * After an outage all leases have run out, though nobody died: every process that lives gets the
   * time to end its pause and renew its leases. The same goes for a process that was away itself,
   * or begins: it cannot know what was before.
   */
  #mayReclaim(): boolean {
    const { pollMs, heartbeatMs, maxBackoffMs } = this.#options.timing
    const now = performance.now()
    if (now - this.#lastAt > heartbeatMs / 2 + pollMs)
      this.#reclaimsFrom = now + heartbeatMs + maxBackoffMs
    this.#lastAt = now
    return now >= this.#reclaimsFrom
  }
}
