import { url as inspectorUrl } from 'node:inspector'
import { mainCoreTime } from './core-time.ts'

/**
 * Says that nobody watches: before the start, after the end, and while a debugger may hold the
 * event loop.
 */
const NO_BEAT = 0n

/**
 * Shared memory with two cells: when the event loop came round last, by the clock that all threads
 * share, and how long it had waited for a core by then.
 */
export type Beats = BigInt64Array<SharedArrayBuffer>

export const createBeats = (): Beats =>
  new BigInt64Array(new SharedArrayBuffer(2 * BigInt64Array.BYTES_PER_ELEMENT))

/**
 * When the last beat was, in nanoseconds of `process.hrtime.bigint()`; undefined while nobody
 * watches.
 */
export const lastBeat = (beats: Beats): bigint | undefined => Atomics.load(beats, 0) || undefined

/** How long the event loop's thread had waited for a core until the last beat, in nanoseconds. */
export const waitAtLastBeat = (beats: Beats): bigint => Atomics.load(beats, 1)

/**
 * The event loop's end: a timer that notes the time and the wait for a core, which is all that
 * being watched costs.
 */
export class Heartbeat {
  readonly #beats: Beats
  readonly #periodMs: number
  #timer: NodeJS.Timeout | undefined

  constructor(beats: Beats, periodMs: number) {
    this.#beats = beats
    this.#periodMs = periodMs
  }

  start(): void {
    this.#timer ??= setInterval(() => this.beat(), this.#periodMs).unref()
    this.beat()
  }

  stop(): void {
    clearInterval(this.#timer)
    Atomics.store(this.#beats, 0, NO_BEAT)
  }

  /**
   * Says that the loop turns. Whoever has a debugger at hand stops it on purpose, for as long as
   * they please.
   */
  beat(): void {
    Atomics.store(this.#beats, 1, mainCoreTime().waited)
    Atomics.store(this.#beats, 0, inspectorUrl() ? NO_BEAT : process.hrtime.bigint())
  }
}
