import type { WorkOptions } from './call.ts'

/** README.md explains each threshold. */

// Admission: work is refused once it has waited too long.
export const MAX_WAIT_SHARE = 0.5
export const MIN_WAIT_SHARE = 0.1
export const MIN_WAIT_MS = 100
export const MAX_WAIT_MS = 30_000
export const RUN_TIME_MARGIN = 2
export const MAX_QUEUED = 10_000
export const SWEEP_INTERVAL_MS = 20
export const DRAIN_SHARE = 0.9

// Fairness between priorities, and between callers.
export const INTERACTIVE_SHARE = 0.8
export const MAX_PRIORITY_DEBT_MS = 10_000
export const MAX_CALLER_DEBT_MS = 1_000
export const MAX_CALLER_CREDIT_MS = 100
export const MAX_RUN_MAP_IMBALANCE_MS = 100
export const MAX_CALLERS_WITH_MAPS = 2

// Dispatch: short calls are sent ahead to busy workers.
export const MAX_AHEAD_MS = 10
export const MAX_IN_FLIGHT = 64
export const OVERDUE_MS = 20
export const STARVED_MS = 2
export const MAX_RESEND_MS = 0.5
export const MAX_LOST_WORKERS = 2

// Maps: chunks are sized by the measured time per item.
export const CHUNK_MS = 8
export const MIN_CHUNK_MS = 0.25
export const MAX_CHUNK_MS = 20
export const MAX_CHUNK_ITEMS = 1_024
export const MAX_CHUNK_GROWTH = 16
export const CHUNKS_PER_THREAD = 2
export const PIECES_PER_THREAD = 128
export const STREAM_CHUNKS_PER_THREAD = 4
export const SOURCE_STALL_MS = 4
export const CLEAR_MISS = 2
export const MIN_CHUNKS_TO_JUDGE = 4

// Calls to other processes.
export const REMOTE_CHUNK_MS = 250
export const MAX_REMOTE_CHUNK_MS = 1_000
export const MAX_REMOTE_WAIT_MS = 1_000
export const MAX_REMOTE_CHUNK_ITEMS = 16_384
export const CHUNKS_AHEAD_OF_REMOTE = 64

export const RUN_TIME_WEIGHT = 0.1
export const LEAST_TIME_WEIGHT = 0.02
export const CHUNK_TIME_WEIGHT = 0.3

export const CANCEL_GRACE_MS = 100
export const START_TIMEOUT_MS = 30_000
export const RESTART_DELAY_MS = 100
export const MAX_RESTART_DELAY_MS = 5_000
export const IDLE_TIMEOUT_MS = 60_000
export const SPIN_MS = 0.05
export const MAX_BURST = 1_000
export const PROGRESS_INTERVAL_MS = 100

/** How long work may wait. @param leastMs its shortest recent run time; 0 if unknown. */
export function maxWaitMs(
  { timeoutMs, priority, isRemote }: Pick<WorkOptions, 'timeoutMs' | 'priority' | 'isRemote'>,
  leastMs: number,
): number {
  if (isRemote) return MAX_REMOTE_WAIT_MS
  // Jobs have their own deadline.
  if (timeoutMs === undefined) return priority === 'batch' ? Number.POSITIVE_INFINITY : MAX_WAIT_MS
  const mostMs = Math.min(timeoutMs * MAX_WAIT_SHARE, timeoutMs - RUN_TIME_MARGIN * leastMs)
  return Math.max(mostMs, timeoutMs * MIN_WAIT_SHARE, MIN_WAIT_MS)
}

/** Whether a map of similar items will clearly miss its deadline. */
export const willMissDeadline = (chunksPerThread: number, expectedMs: number, timeLeftMs: number) =>
  chunksPerThread >= MIN_CHUNKS_TO_JUDGE && expectedMs > CLEAR_MISS * timeLeftMs
