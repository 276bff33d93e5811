import { setImmediate as immediate } from 'node:timers/promises'
import type { Log } from '../../src/log.ts'
import type { Consumer, Engine } from './engine.ts'
import { Loop } from './loop.ts'
import type { Timing } from './timing.ts'

/**
 * Delivers without anything but the database: at once what this process queued, by polling what
 * others did.
 */
export class PollingEngine implements Engine {
  readonly #loop: Loop
  #consumer: Consumer | undefined

  constructor({
    log,
    timing: { pollMs, maxBackoffMs },
  }: { log: Log; timing: Pick<Timing, 'pollMs' | 'maxBackoffMs'> }) {
    this.#loop = new Loop({
      name: 'claim',
      log,
      restMs: pollMs,
      maxBackoffMs,
      runOnce: () => this.#runOnce(),
    })
  }

  start(consumer: Consumer): void {
    this.#consumer = consumer
    this.#loop.start()
  }

  queued(): void {
    this.#loop.wake()
  }

  room(): void {
    this.#loop.wake()
  }

  stop(): Promise<void> {
    return this.#loop.stop()
  }

  async #runOnce(): Promise<boolean> {
    const consumer = this.#consumer
    // What ends together makes room for one claim together.
    await immediate()
    if (!consumer || consumer.room === 0) return false
    return (await consumer.claim()) && consumer.room > 0
  }
}
