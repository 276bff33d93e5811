import { performance } from 'node:perf_hooks'

/**
 * Gives a function that reads how much of the time since its last reading the event loop was busy,
 * from 0 to 1.
 */
export function utilization(): () => number {
  let last = performance.eventLoopUtilization()
  return () => {
    const now = performance.eventLoopUtilization()
    const { utilization: ratio } = performance.eventLoopUtilization(now, last)
    last = now
    return ratio
  }
}
