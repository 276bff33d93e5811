import { readlinkSync } from 'node:fs'
import { constants, setPriority } from 'node:os'
import { basename } from 'node:path'

/**
 * Gives the calling thread the lowest priority, so that the event loop gets a core whenever it
 * wants one, even with as many busy threads as cores. On Linux a thread is scheduled like a process
 * and `/proc/thread-self` names its id; elsewhere Node has no handle on a single thread, and all
 * keep the same priority.
 */
export function lowerPriority(): void {
  if (process.platform !== 'linux') return
  try {
    setPriority(
      Number(basename(readlinkSync('/proc/thread-self'))),
      constants.priority.PRIORITY_LOW,
    )
  } catch {
    // Forbidden in some sandboxes: the tasks run all the same.
  }
}
