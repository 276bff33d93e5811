import { openSync, readSync } from 'node:fs'
import { url as inspectorUrl } from 'node:inspector'
import { performance } from 'node:perf_hooks'

const NS_PER_MS = 1_000_000
/** The beat before the start, after the stop, and while a debugger may stop the event loop. */
const NOT_WATCHED = 0n

/**
 * Shared memory: when the event loop turned last, in nanoseconds of `process.hrtime.bigint()`, and
 * the run-queue delay of its thread until then.
 */
export type Cells = BigInt64Array<SharedArrayBuffer>

export const createCells = (): Cells =>
  new BigInt64Array(new SharedArrayBuffer(2 * BigInt64Array.BYTES_PER_ELEMENT))

/** Undefined while the event loop is not watched. */
export const readBeat = (cells: Cells): bigint | undefined => Atomics.load(cells, 0) || undefined

export const readRunQueueDelayAtBeat = (cells: Cells): bigint => Atomics.load(cells, 1)

/** A timer on the event loop, by which the watchdog's thread sees that the loop turns. */
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

  /**
   * How late the beats were since the last call, in milliseconds with three decimal places, without
   * time in which the thread had no core.
   */
  readDelay(): { p50: number; p99: number; max: number } {
    // The caller's timer may have run before a beat that is late as well.
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
    const withoutCoreMs = Number(runQueueDelayNs - this.#runQueueDelayNs) / NS_PER_MS
    const delayMs = Math.max(0, now - this.#measuredAt - withoutCoreMs - this.#periodMs)
    // A long block is the delay of each beat that it swallowed, not one value of many.
    for (let late = delayMs; late >= 0; late -= this.#periodMs) this.#delaysMs.push(late)
    this.#measuredAt = now
    this.#runQueueDelayNs = runQueueDelayNs
  }
}

/** What Linux counts for a thread; always 0 elsewhere. */
interface ThreadTime {
  /** Time ready to run, but without a core. */
  runQueueDelayNs: bigint
  /** That, and time on a core. */
  totalNs: bigint
}

/** Can be called on any thread. */
export const readMainThreadTime = schedstatReader(`/proc/self/task/${process.pid}/schedstat`)

export const readOwnThreadTime = schedstatReader('/proc/thread-self/schedstat')

/** Keeps the file open: reading takes 3 µs then, and works without a free file descriptor. */
function schedstatReader(path: string): () => ThreadTime {
  /** For three numbers of at most 20 digits. */
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
      // Not Linux: there is no such file.
    }
    return last
  }
}
