/** Where nobody watches a terminal, a log gets a line this often. */
const LINE_EVERY_MS = 15_000

/** Says what is being measured, and how long the rest will take. */
export class Progress {
  #leftMs: number
  #saidAt = Number.NEGATIVE_INFINITY

  /** @param totalMs what all steps take together. */
  constructor(totalMs: number) {
    this.#leftMs = totalMs
  }

  /** A step begins that takes about `ms`. */
  next(what: string, ms: number): void {
    const line = `${clock(this.#leftMs)} left · ${what}`
    this.#leftMs = Math.max(0, this.#leftMs - ms)
    if (process.stdout.isTTY) process.stdout.write(`\r\u001B[K${line}`)
    else if (performance.now() - this.#saidAt > LINE_EVERY_MS) {
      console.log(line)
      this.#saidAt = performance.now()
    }
  }

  /** Clears the line, so that the next one is not written over it. */
  end(): void {
    if (process.stdout.isTTY) process.stdout.write('\r\u001B[K')
  }
}

/** `7:05`. */
const clock = (ms: number) =>
  `${Math.floor(ms / 60_000)}:${String(Math.round(ms / 1_000) % 60).padStart(2, '0')}`
