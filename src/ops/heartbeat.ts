import { url as inspectorUrl } from 'node:inspector'

/** Says that nobody watches: before the start, after the end, and while a debugger may hold the event loop. */
const NO_BEAT = 0n

/** Shared memory with one cell: when the event loop came round last, by the clock that all threads share. */
export type Beats = BigInt64Array<SharedArrayBuffer>

export const createBeats = (): Beats => new BigInt64Array(new SharedArrayBuffer(BigInt64Array.BYTES_PER_ELEMENT))

/** When the last beat was, in nanoseconds of `process.hrtime.bigint()`; undefined while nobody watches. */
export const lastBeat = (beats: Beats): bigint | undefined => Atomics.load(beats, 0) || undefined

/** The event loop's end: a timer that notes the time, which is all that it costs to be watched. */
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

  /** Says that the loop turns. Whoever has a debugger at hand stops it on purpose, for as long as they please. */
  beat(): void {
    Atomics.store(this.#beats, 0, inspectorUrl() ? NO_BEAT : process.hrtime.bigint())
  }
}
