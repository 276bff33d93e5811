import { openSync, readSync } from 'node:fs'

/** The file holds three numbers of at most 20 digits each. */
const MAX_BYTES = 64

/**
 * What a thread has spent so far, in nanoseconds. Linux counts it for each thread; elsewhere both
 * are always 0.
 */
export interface CoreTime {
  /** On a core. */
  ran: bigint
  /**
   * Without a core, although it could have run: time in which none of its code blocked anything.
   */
  waited: bigint
}

/** Of the process's main thread, whichever thread asks. */
export const mainCoreTime = readerOf(`/proc/self/task/${process.pid}/schedstat`)

/** Of the calling thread. */
export const ownCoreTime = readerOf('/proc/thread-self/schedstat')

/**
 * The file stays open: a read then takes 3 µs, and works when the process has no file descriptors
 * left.
 */
function readerOf(path: string): () => CoreTime {
  const bytes = new Uint8Array(MAX_BYTES)
  let file: number | undefined
  let last: CoreTime = { ran: 0n, waited: 0n }
  return () => {
    try {
      file ??= openSync(path, 'r')
      const length = readSync(file, bytes, 0, MAX_BYTES, 0)
      const [ran = '', waited = ''] = String.fromCharCode(...bytes.subarray(0, length)).split(' ')
      last = { ran: BigInt(ran), waited: BigInt(waited) }
    } catch {
      // Not Linux: there is no such file.
    }
    return last
  }
}
