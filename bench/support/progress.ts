/** Where nobody watches a terminal, a log gets a line this often. */
const LINE_INTERVAL_MS = 15_000

/** Says on stderr what is being measured, and how long the rest will take. */
export class Progress {
  #leftMs = 0
  #printedAt = Number.NEGATIVE_INFINITY

  /** Sets how long all further steps take together. */
  expect(totalMs: number): void {
    this.#leftMs = totalMs
  }

  /** A step begins that takes about `ms`. */
  next(what: string, ms = 0): void {
    const line = this.#leftMs > 0 ? `${formatClock(this.#leftMs)} left · ${what}` : what
    this.#leftMs = Math.max(0, this.#leftMs - ms)
    if (process.stderr.isTTY) process.stderr.write(`\r\u001B[K${line}`)
    else if (performance.now() - this.#printedAt > LINE_INTERVAL_MS) {
      console.error(line)
      this.#printedAt = performance.now()
    }
  }

  /** Clears the line, so that the next one is not written over it. */
  end(): void {
    if (process.stderr.isTTY) process.stderr.write('\r\u001B[K')
  }
}

/** `7:05`. */
const formatClock = (ms: number) =>
  `${Math.floor(ms / 60_000)}:${String(Math.round(ms / 1_000) % 60).padStart(2, '0')}`
