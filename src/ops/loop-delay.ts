import { performance } from 'node:perf_hooks'
import { mainCoreTime } from '@offloop/loopwatch/core-time'

const NS_PER_MS = 1_000_000

/** A block shorter than that may fall between two looks. */
const EVERY_MS = 10

/**
 * How late the event loop comes to what is due: a timer looks 100 times a second. Time without a
 * core does not count, as it does not for the watchdog: no code of ours blocks the event loop then.
 *
 * Node has a histogram for it (`monitorEventLoopDelay`). But what it does not count is the time
 * until its first look after a reset: read every second, it loses a block of any length that begins
 * there or lasts beyond the reading.
 */
export class LoopDelay implements Disposable {
  readonly #timer: NodeJS.Timeout
  #lateMs: number[] = []
  #lookedAt = performance.now()
  readonly #coreWait: () => bigint
  #waited: bigint

  /** @param waited how long this thread has waited for a core so far, in nanoseconds. */
  constructor(waited = () => mainCoreTime().waited) {
    this.#coreWait = waited
    this.#waited = waited()
    this.#timer = setInterval(() => this.#look(), EVERY_MS).unref()
  }

  /**
   * Milliseconds since the last reading: what half of the looks, and 99 % of them, were late by at
   * most, and the latest.
   */
  read(): { p50: number; p99: number; max: number } {
    // Of two timers that are both late the other one may have come first: then this is where the
    // delay is seen.
    this.#look()
    const late = this.#lateMs.toSorted((a, b) => a - b)
    this.#lateMs = []
    const quantile = (share: number) => late[Math.floor(share * (late.length - 1))] ?? 0
    return { p50: quantile(0.5), p99: quantile(0.99), max: quantile(1) }
  }

  [Symbol.dispose]() {
    clearInterval(this.#timer)
  }

  #look() {
    const now = performance.now()
    const waited = this.#coreWait()
    const lateMs = Math.max(
      0,
      now - this.#lookedAt - Number(waited - this.#waited) / NS_PER_MS - EVERY_MS,
    )
    this.#lateMs.push(lateMs)
    // The looks that it missed meanwhile would have been late as well: without them, one long block
    // is one look of many.
    for (let missedMs = lateMs - EVERY_MS; missedMs > 0; missedMs -= EVERY_MS)
      this.#lateMs.push(missedMs)
    this.#lookedAt = now
    this.#waited = waited
  }
}
