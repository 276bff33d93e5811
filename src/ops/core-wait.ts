import { readFileSync } from 'node:fs'

/**
 * How long the process's main thread has waited for a core so far, in nanoseconds, while it could have run: time in which
 * no code of ours held the event loop. Linux counts it for each thread; elsewhere it counts as none.
 */
export function coreWait(): bigint {
  try {
    const [, waited] = readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'utf8').split(' ')
    return BigInt(waited ?? 0)
  } catch {
    return 0n
  }
}
