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

/** Shows another thread that the event loop turns. */
export class Heartbeat {
  readonly #cells: Cells
  readonly #periodMs: number
  readonly #readThreadTime: () => Pick<ThreadTime, 'runQueueDelayNs'>
  #timer: NodeJS.Timeout | undefined
  #delaysMs: number[] = []
  #measuredAt = performance.now()
  #runQueueDelayNs: bigint

  constructor(cells: Cells, periodMs: number, readThreadTime = readMainThreadTime) {
    this.#cells = cells
    this.#periodMs = periodMs
    this.#readThreadTime = readThreadTime
    this.#runQueueDelayNs = readThreadTime().runQueueDelayNs
  }

  start(): void {
    this.#timer ??= setInterval(() => this.beat(), this.#periodMs).unref()
    this.beat()
  }

  stop(): void {
    clearInterval(this.#timer)
    Atomics.store(this.#cells, 0, NOT_WATCHED)
  }

  beat(): void {
    this.#measureDelay()
    Atomics.store(this.#cells, 1, this.#runQueueDelayNs)
    Atomics.store(this.#cells, 0, inspectorUrl() ? NOT_WATCHED : process.hrtime.bigint())
  }

  /** How late beats were since the last call, in milliseconds, without waiting for a core. */
  readDelay(): { p50: number; p99: number; max: number } {
    // The caller's timer may run before a late beat.
    this.#measureDelay()
    const sorted = this.#delaysMs.toSorted((a, b) => a - b)
    this.#delaysMs = []
    const quantile = (share: number) =>
      Math.round((sorted[Math.floor(share * (sorted.length - 1))] ?? 0) * 1_000) / 1_000
    return { p50: quantile(0.5), p99: quantile(0.99), max: quantile(1) }
  }

  #measureDelay() {
    const now = performance.now()
    const { runQueueDelayNs } = this.#readThreadTime()
    const withoutCoreMs = toMs(runQueueDelayNs - this.#runQueueDelayNs)
    const delayMs = Math.max(0, now - this.#measuredAt - withoutCoreMs - this.#periodMs)
    // A long block counts once for each beat that it delayed.
    for (let late = delayMs; late >= 0; late -= this.#periodMs) this.#delaysMs.push(late)
    this.#measuredAt = now
    this.#runQueueDelayNs = runQueueDelayNs
  }
}

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
