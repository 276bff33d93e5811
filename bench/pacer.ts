import { parentPort, workerData } from 'node:worker_threads'
import { nowMs } from './clock.ts'

/**
 * The prober's metronome, on a thread of its own: Node's timers tick in whole milliseconds, which
 * is as much as the answers take that we time with them; a thread that sleeps on a lock wakes up
 * within 0.1 ms.
 */
export interface Beats {
  startAtMs: number
  intervalMs: number
  count: number
}

const { startAtMs, intervalMs, count } = workerData as Beats
const never = new Int32Array(new SharedArrayBuffer(4))

for (let beat = 0; beat < count; beat++) {
  const waitMs = startAtMs + beat * intervalMs - nowMs()
  if (waitMs > 0) Atomics.wait(never, 0, 0, waitMs)
  parentPort?.postMessage(beat)
}
