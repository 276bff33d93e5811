import { openSync, readSync } from 'node:fs'
import { url as inspectorUrl } from 'node:inspector'
import { performance } from 'node:perf_hooks'

export const toMs = (ns: bigint) => Number(ns) / 1_000_000

/** The beat while stopped or under a debugger. */
const NOT_WATCHED = 0n

/**
 * Shared memory: the last beat, in nanoseconds of `process.hrtime.bigint()`, and the thread's
 * run-queue delay until then.
 */
export type Cells = BigInt64Array<SharedArrayBuffer>

export const createCells = (): Cells =>
  new BigInt64Array(new SharedArrayBuffer(2 * BigInt64Array.BYTES_PER_ELEMENT))

/** Undefined while the event loop is not watched. */
export const readBeat = (cells: Cells): bigint | undefined => Atomics.load(cells, 0) || undefined

export const readRunQueueDelayAtBeat = (cells: Cells): bigint => Atomics.load(cells, 1)

/** In milliseconds. */
export interface LoopDelay {
  p50: number
  p99: number
  max: number
  /** Not part of the delay. */
  withoutCoreMs: number
}

/** The time between two beats, in which the event loop was blocked. */
export interface LateBeat {
  lastBeat: bigint
  beat: bigint
  /** When the block began, in milliseconds since the epoch. */
  at: number
  /** Without `withoutCoreMs`. */
  blockedMs: number
}

interface HeartbeatOptions {
  cells: Cells
  periodMs: number
  /** A beat that is later is reported; 0 reports none. */
  thresholdMs: number
  onLate: (late: LateBeat) => void
  readThreadTime?: () => Pick<ThreadTime, 'runQueueDelayNs'>
}

/** Shows another thread that the event loop turns. */
export class Heartbeat {
  readonly #options: HeartbeatOptions
  readonly #readThreadTime: () => Pick<ThreadTime, 'runQueueDelayNs'>
  #timer: NodeJS.Timeout | undefined
  #delaysMs: number[] = []
  #measuredAt = performance.now()
  #runQueueDelayNs: bigint
  #runQueueDelayAtReadNs: bigint

  constructor({ readThreadTime = readMainThreadTime, ...options }: HeartbeatOptions) {
    this.#options = options
    this.#readThreadTime = readThreadTime
    this.#runQueueDelayNs = readThreadTime().runQueueDelayNs
    this.#runQueueDelayAtReadNs = this.#runQueueDelayNs
  }

  start(): void {
    this.#timer ??= setInterval(() => this.beat(), this.#options.periodMs).unref()
    this.beat()
    // Delays before it kept no request waiting.
    this.#delaysMs = []
  }

  stop(): void {
    clearInterval(this.#timer)
    Atomics.store(this.#options.cells, 0, NOT_WATCHED)
  }

  beat(): void {
    this.#measureDelay()
    const { cells, onLate } = this.#options
    const beat = inspectorUrl() ? NOT_WATCHED : process.hrtime.bigint()
    const late = beat && this.#findLate(beat)
    Atomics.store(cells, 1, this.#runQueueDelayNs)
    Atomics.store(cells, 0, beat)
    if (late) onLate(late)
  }

  /** Found here: without a core, the other thread misses beats. */
  #findLate(beat: bigint): LateBeat | undefined {
    const { cells, periodMs, thresholdMs } = this.#options
    const lastBeat = readBeat(cells)
    if (!lastBeat || thresholdMs === 0) return
    const lateMs = toMs(beat - lastBeat) - periodMs
    const blockedMs = lateMs - toMs(this.#runQueueDelayNs - readRunQueueDelayAtBeat(cells))
    return blockedMs < thresholdMs
      ? undefined
      : { lastBeat, beat, at: Date.now() - lateMs, blockedMs }
  }

  readDelay(): LoopDelay {
    // The caller's timer may run before a late beat.
    this.#measureDelay()
    const sorted = this.#delaysMs.toSorted((a, b) => a - b)
    this.#delaysMs = []
    const quantile = (share: number) => round(sorted[Math.floor(share * (sorted.length - 1))] ?? 0)
    const withoutCoreMs = round(toMs(this.#runQueueDelayNs - this.#runQueueDelayAtReadNs))
    this.#runQueueDelayAtReadNs = this.#runQueueDelayNs
    return { p50: quantile(0.5), p99: quantile(0.99), max: quantile(1), withoutCoreMs }
  }

  #measureDelay() {
    const now = performance.now()
    const { runQueueDelayNs } = this.#readThreadTime()
    const withoutCoreMs = toMs(runQueueDelayNs - this.#runQueueDelayNs)
    const { periodMs } = this.#options
    const delayMs = Math.max(0, now - this.#measuredAt - withoutCoreMs - periodMs)
    // A long block counts once for each beat that it delayed.
    for (let late = delayMs; late >= 0; late -= periodMs) this.#delaysMs.push(late)
    this.#measuredAt = now
    this.#runQueueDelayNs = runQueueDelayNs
  }
}

/** To microseconds. */
const round = (ms: number) => Math.round(ms * 1_000) / 1_000

/** What Linux counts for a thread; always 0 elsewhere. */
interface ThreadTime {
  /** Time ready to run, but without a core. */
  runQueueDelayNs: bigint
  /** With time on a core. */
  totalNs: bigint
}

export const readMainThreadTime = schedstatReader(`/proc/self/task/${process.pid}/schedstat`)

export const readOwnThreadTime = schedstatReader('/proc/thread-self/schedstat')

/** Keeps the file open: reads take 3 µs and need no free file descriptor. */
function schedstatReader(path: string): () => ThreadTime {
  const bytes = new Uint8Array(64)
  let file: number | undefined
  let last: ThreadTime = { runQueueDelayNs: 0n, totalNs: 0n }
  return () => {
    try {
      file ??= openSync(path, 'r')
      const length = readSync(file, bytes, 0, bytes.length, 0)
      const [onCore = '', delay = ''] = String.fromCharCode(...bytes.subarray(0, length)).split(' ')
      last = { runQueueDelayNs: BigInt(delay), totalNs: BigInt(onCore) + BigInt(delay) }
    } catch {
      // Not Linux.
    }
    return last
  }
}
