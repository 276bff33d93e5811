import type { EntryOptions } from './entry.ts'

/**
 * Which work a pool takes on, in one place. Work is refused when it has waited too long, never at
 * once by an estimate: clients who are refused at once come back at once, and their refusals take
 * the processor from the work.
 *
 * | name | value | bounds |
 * |---|---|---|
 * | `MAX_WAIT_SHARE` | 0.5 of `timeoutMs` | the wait; the rest is for running |
 * | `MIN_WAIT_SHARE`, `MIN_WAIT_MS` | 0.1 of `timeoutMs`, 100 ms | from below: what it may wait however long its task takes |
 * | `MAX_WAIT_MS` | 30 s | the wait of interactive work without `timeoutMs`; jobs have their own deadline |
 * | `RUN_MARGIN` | 2 × the least that its task took lately | what must be left of `timeoutMs` when it begins |
 * | `MAX_WAITING` | 10 000 of each priority | memory, and nothing else |
 * | `MAX_MAPPING_CALLERS` | 2 | callers whose maps share the threads: more maps would all be late together |
 * | `CLEAR_MISS`, `MIN_CHUNKS_PER_THREAD` | 2 × the time that is left, after 4 chunks | ends a map of even pieces early |
 * | `DRAIN_SHARE` | 0.9 of `drainMs` | the work that was accepted before a stop; the rest is for answering |
 */
export const MAX_WAITING = 10_000
export const MAX_MAPPING_CALLERS = 2
export const DRAIN_SHARE = 0.9
const MAX_WAIT_SHARE = 0.5
const MIN_WAIT_SHARE = 0.1
const MIN_WAIT_MS = 100
const MAX_WAIT_MS = 30_000
const RUN_MARGIN = 2
const CLEAR_MISS = 2
const MIN_CHUNKS_PER_THREAD = 4

/**
 * How long work may wait for its turn, in milliseconds.
 *
 * @param leastMs how long it will run at least; 0 where that is not known.
 */
export function maxWaitMs({ timeoutMs, priority }: EntryOptions, leastMs: number): number {
  if (timeoutMs === undefined) return priority === 'batch' ? Number.POSITIVE_INFINITY : MAX_WAIT_MS
  const mostMs = Math.min(timeoutMs * MAX_WAIT_SHARE, timeoutMs - RUN_MARGIN * leastMs)
  return Math.max(mostMs, timeoutMs * MIN_WAIT_SHARE, MIN_WAIT_MS)
}

/** How far a map is whose items take about the same time each. */
export interface Course {
  chunks: number
  threads: number
  itemsLeft: number
  msPerItem: number
  timeLeftMs: number
}

/**
 * Whether a map will clearly end too late. Code that is not compiled yet makes the first chunks
 * look longer.
 */
export const isHopeless = ({ chunks, threads, itemsLeft, msPerItem, timeLeftMs }: Course) =>
  chunks >= MIN_CHUNKS_PER_THREAD * threads &&
  (itemsLeft * msPerItem) / threads > CLEAR_MISS * timeLeftMs
