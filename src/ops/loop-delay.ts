/** A block shorter than that may fall between two looks; with fewer, 99 % of a second's looks would be all of them. */
const EVERY_MS = 10

/**
 * How late the event loop comes to what is due: a timer looks 100 times a second.
 *
 * Node has a histogram for it (`monitorEventLoopDelay`). But what it does not count is the time until its first look after
 * a reset: read every second, it loses a block of any length that begins there or lasts beyond the reading.
 */
export class LoopDelay implements Disposable {
  readonly #timer: NodeJS.Timeout
  #lateMs: number[] = []
  #lookedAt = performance.now()

  constructor() {
    this.#timer = setInterval(() => this.#look(), EVERY_MS).unref()
  }

  /** Milliseconds since the last reading: what half of the looks, and 99 % of them, were within, and the latest. */
  read(): { p50: number; p99: number; max: number } {
    // Of two timers that are both late the other one may have come first: then this is where the delay is seen.
    this.#look()
    const late = this.#lateMs.toSorted((a, b) => a - b)
    this.#lateMs = []
    const quantile = (share: number) => late[Math.ceil(share * late.length) - 1] ?? 0
    return { p50: quantile(0.5), p99: quantile(0.99), max: quantile(1) }
  }

  [Symbol.dispose]() {
    clearInterval(this.#timer)
  }

  #look() {
    const now = performance.now()
    this.#lateMs.push(Math.max(0, now - this.#lookedAt - EVERY_MS))
    this.#lookedAt = now
  }
}
