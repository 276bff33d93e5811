import { performance } from 'node:perf_hooks'
import { type AppError, overloaded } from '../errors.ts'

/** Enough to keep every permit in use. */
const WAITING_PER_PERMIT = 4
const BUSY = 'The database is busy: try again shortly'

export interface WaitLimits {
  /** Protects memory; `maxWaitMs` usually applies first. */
  maxWaiters: number
  maxWaitMs: number
  refusal?: string
  /** Called with each wait, admitted or not. */
  onWait?: ((ms: number) => void) | undefined
}

interface Waiter {
  readonly admit: () => void
  readonly refuse: (error: AppError) => void
}

interface Place extends Waiter {
  readonly since: number
  readonly signal: AbortSignal | undefined
  readonly onAbort: () => void
  isLeft: boolean
}

/** Refuses after a wait: refused at once, clients would return immediately. */
class WaitQueue {
  readonly #limits: WaitLimits
  /** The first one is not left. Not a `Set`, whose first element is slow to find. */
  readonly #places: Place[] = []
  #waiting = 0
  /** For the first waiter. */
  #timer: NodeJS.Timeout | undefined

  constructor(limits: WaitLimits) {
    this.#limits = limits
  }

  get waiting() {
    return this.#waiting
  }

  protected wait({ admit, refuse }: Waiter, signal?: AbortSignal) {
    if (this.#waiting >= this.#limits.maxWaiters) return refuse(this.#refusal())
    const onAbort = () => {
      this.#leave(place)
      refuse(signal?.reason)
    }
    const since = performance.now()
    const place: Place = { admit, refuse, since, signal, onAbort, isLeft: false }
    signal?.addEventListener('abort', onAbort)
    this.#places.push(place)
    this.#waiting++
    this.#timer ??= this.#startTimer(this.#limits.maxWaitMs)
  }

  protected admitFirst(): boolean {
    const first = this.#places[0]
    if (!first) return false
    this.#leave(first)
    first.admit()
    return true
  }

  #leave(place: Place) {
    place.signal?.removeEventListener('abort', place.onAbort)
    place.isLeft = true
    this.#waiting--
    while (this.#places[0]?.isLeft) this.#places.shift()
    this.#limits.onWait?.(performance.now() - place.since)
  }

  #startTimer(ms: number): NodeJS.Timeout {
    return setTimeout(() => this.#refuseOverdue(), ms).unref()
  }

  #refuseOverdue() {
    // Node's timers may fire a millisecond early.
    const overdueSince = performance.now() - this.#limits.maxWaitMs + 1
    let first = this.#places[0]
    for (; first && first.since <= overdueSince; first = this.#places[0]) {
      this.#leave(first)
      first.refuse(this.#refusal())
    }
    this.#timer = first && this.#startTimer(Math.ceil(first.since - overdueSince + 1))
  }

  #refusal() {
    const { refusal = BUSY, maxWaitMs } = this.#limits
    return overloaded(refusal, maxWaitMs)
  }
}

/** First in, first out, with a time limit, which mysql2's queue lacks. */
export class Semaphore extends WaitQueue {
  readonly permits: number
  #inUse = 0

  constructor(permits: number, limits: WaitLimits) {
    super(limits)
    this.permits = permits
  }

  get inUse() {
    return this.#inUse
  }

  /**
   * Returns undefined if a permit is free.
   *
   * @throws AppError `overloaded` after `maxWaitMs` or beyond `maxWaiters`; the signal's reason.
   */
  acquire(signal?: AbortSignal): Promise<void> | undefined {
    if (this.#inUse < this.permits) {
      this.#inUse++
      return
    }
    if (signal?.aborted) return Promise.reject(signal.reason)
    return new Promise((admit, refuse) => this.wait({ admit, refuse }, signal))
  }

  release() {
    if (!this.admitFirst()) this.#inUse--
  }
}

/** Delays requests while many callers wait for a permit (docs/decisions/014). */
export class Backlog extends WaitQueue {
  readonly #semaphore: Semaphore
  #turn: NodeJS.Immediate | undefined

  constructor(semaphore: Semaphore, limits: WaitLimits) {
    super(limits)
    this.#semaphore = semaphore
  }

  /** Admits or refuses a request, as `acquire` does. */
  add(waiter: Waiter): void {
    if (this.waiting === 0 && this.#room > 0) waiter.admit()
    else this.wait(waiter)
  }

  /** For each caller that leaves the semaphore's queue. */
  wake(): void {
    if (this.waiting > 0) this.#turn ??= setImmediate(this.#admit)
  }

  get #room() {
    return this.#semaphore.permits * WAITING_PER_PERMIT - this.#semaphore.waiting
  }

  #admit = () => {
    this.#turn = undefined
    const room = this.#room
    let free = room
    while (free > 0 && this.admitFirst()) free--
    // Some admitted requests never acquire a permit.
    if (room > 0) this.wake()
  }
}
