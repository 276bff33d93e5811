/** Rare enough to leave the cores to the threads. */
const SAMPLE_EVERY_MS = 5

export const MIB = 2 ** 20

/**
 * How far the resident memory of this process gets above what it is now, in MiB, while `work` goes
 * on.
 */
export async function memoryGrowth(work: () => Promise<unknown>): Promise<number> {
  const before = process.memoryUsage.rss()
  let peak = before
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
  return (peak - before) / MIB
}
