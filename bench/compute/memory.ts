/** Rare enough to leave the cores to the threads. */
const SAMPLE_EVERY_MS = 5

const MIB = 2 ** 20

/** How far the resident memory of this process gets above what it is now, at its peak. */
export class MemoryWatch {
  readonly #before = process.memoryUsage.rss()

  /** In MiB, while `work` goes on. */
  async growthDuring(work: () => Promise<unknown>): Promise<number> {
    let peak = this.#before
    const sample = () => {
      peak = Math.max(peak, process.memoryUsage.rss())
    }
    const sampling = setInterval(sample, SAMPLE_EVERY_MS)
    try {
      await work()
    } finally {
      clearInterval(sampling)
    }
    sample()
    return (peak - this.#before) / MIB
  }
}
