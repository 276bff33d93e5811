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
export type HeartbeatCells = BigInt64Array<SharedArrayBuffer>

export const createCells = (): HeartbeatCells =>
  new BigInt64Array(new SharedArrayBuffer(2 * BigInt64Array.BYTES_PER_ELEMENT))

/** Undefined while the event loop is not watched. */
export const readBeat = (cells: HeartbeatCells): bigint | undefined =>
  Atomics.load(cells, 0) || undefined

export const readDelayAtBeat = (cells: HeartbeatCells): bigint => Atomics.load(cells, 1)

/** The delay of an event loop in milliseconds: its median, 99th percentile and maximum. */
export interface LoopDelay {
  p50: number
  p99: number
  max: number
}

/** The timer on the event loop that tells the watchdog's thread that the loop turns. */
export class Heartbeat {
  readonly #cells: HeartbeatCells
  readonly #periodMs: number
  readonly #readRunQueueDelay: () => bigint
  #timer: NodeJS.Timeout | undefined
  #delaysMs: number[] = []
  #measuredAt = performance.now()
  #runQueueDelayNs: bigint

  constructor(
    cells: HeartbeatCells,
    periodMs: number,
    readRunQueueDelay = () => readMainThreadTime().runQueueDelayNs,
  ) {
    this.#cells = cells
    this.#periodMs = periodMs
    this.#readRunQueueDelay = readRunQueueDelay
    this.#runQueueDelayNs = readRunQueueDelay()
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

  /** How late the beats were since the last call, without time that the thread had no core. */
  readDelay(): LoopDelay {
    // The caller's timer may have run before a beat that is late as well.
    this.#measureDelay()
    const sorted = this.#delaysMs.toSorted((a, b) => a - b)
    this.#delaysMs = []
    const quantile = (share: number) => sorted[Math.floor(share * (sorted.length - 1))] ?? 0
    return { p50: quantile(0.5), p99: quantile(0.99), max: quantile(1) }
  }

  #measureDelay() {
    const now = performance.now()
    const runQueueDelayNs = this.#readRunQueueDelay()
    const withoutCoreMs = Number(runQueueDelayNs - this.#runQueueDelayNs) / NS_PER_MS
    const delayMs = Math.max(0, now - this.#measuredAt - withoutCoreMs - this.#periodMs)
    this.#delaysMs.push(delayMs)
    // The beats that one long block swallowed count too: otherwise it is one value of many.
    for (let missedMs = delayMs - this.#periodMs; missedMs > 0; missedMs -= this.#periodMs)
      this.#delaysMs.push(missedMs)
    this.#measuredAt = now
    this.#runQueueDelayNs = runQueueDelayNs
  }
}

/** Nanoseconds that Linux counts for a thread; always 0 elsewhere. */
export interface ThreadTime {
  onCoreNs: bigint
  /** Ready to run, but without a core. */
  runQueueDelayNs: bigint
}

/** Can be called on any thread. */
export const readMainThreadTime = schedstatReader(`/proc/self/task/${process.pid}/schedstat`)

export const readOwnThreadTime = schedstatReader('/proc/thread-self/schedstat')

/** Keeps the file open: reading takes 3 µs then, and works without a free file descriptor. */
function schedstatReader(path: string): () => ThreadTime {
  /** For three numbers of at most 20 digits. */
  const bytes = new Uint8Array(64)
  let file: number | undefined
  let last: ThreadTime = { onCoreNs: 0n, runQueueDelayNs: 0n }
  return () => {
    try {
      file ??= openSync(path, 'r')
      const length = readSync(file, bytes, 0, bytes.length, 0)
      const [onCore = '', delay = ''] = String.fromCharCode(...bytes.subarray(0, length)).split(' ')
      last = { onCoreNs: BigInt(onCore), runQueueDelayNs: BigInt(delay) }
    } catch {
      // Not Linux: there is no such file.
    }
    return last
  }
}
