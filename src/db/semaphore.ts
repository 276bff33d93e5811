import { performance } from 'node:perf_hooks'
import { type AppError, overloaded } from '../errors.ts'

/** Enough to keep every permit in use. */
const WAITING_PER_PERMIT = 4

export interface WaitLimits {
  /** Protects memory only; under load, `maxWaitMs` applies first. */
  maxWaiters: number
  maxWaitMs: number
  /** Called with each wait's duration, admitted or not. */
  onWait?: ((ms: number) => void) | undefined
}

interface Waiter {
  readonly admit: () => void
  readonly refuse: (error: AppError) => void
}

/** First in, first out, with a time limit, which mysql2's queue lacks. */
export class Semaphore {
  readonly permits: number
  readonly #queue: WaitQueue
  #inUse = 0

  constructor(permits: number, limits: WaitLimits) {
    this.permits = permits
    this.#queue = new WaitQueue(limits)
  }

  get waiting() {
    return this.#queue.length
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
    return new Promise((resolve, reject) => this.#wait(signal, resolve, reject))
  }

  release() {
    if (!this.#queue.admitFirst()) this.#inUse--
  }

  #wait(signal: AbortSignal | undefined, resolve: () => void, reject: (reason: unknown) => void) {
    const onAbort = () => {
      if (place) this.#queue.remove(place)
      reject(signal?.reason)
    }
    const admit = () => {
      signal?.removeEventListener('abort', onAbort)
      resolve()
    }
    const refuse = (error: unknown) => {
      signal?.removeEventListener('abort', onAbort)
      reject(error)
    }
    const place = this.#queue.add({ admit, refuse })
    if (place) signal?.addEventListener('abort', onAbort)
  }
}

/**
 * Delays requests while many callers wait for a permit: one not begun takes less memory and is
 * cheaper to refuse (docs/decisions/014).
 */
export class Backlog {
  readonly #semaphore: Semaphore
  readonly #queue: WaitQueue
  #turn: NodeJS.Immediate | undefined

  constructor(semaphore: Semaphore, limits: WaitLimits) {
    this.#semaphore = semaphore
    this.#queue = new WaitQueue(limits)
  }

  get waiting() {
    return this.#queue.length
  }

  /** Admits a request once few callers wait, or refuses it as `acquire` does. */
  add(waiter: Waiter): void {
    if (this.#queue.length === 0 && this.#room > 0) waiter.admit()
    else this.#queue.add(waiter)
  }

  /** Call it when a caller leaves the semaphore's queue. */
  wake(): void {
    if (this.#queue.length > 0) this.#turn ??= setImmediate(this.#admit)
  }

  get #room() {
    return this.#semaphore.permits * WAITING_PER_PERMIT - this.#semaphore.waiting
  }

  #admit = () => {
    this.#turn = undefined
    const room = this.#room
    let free = room
    while (free > 0 && this.#queue.admitFirst()) free--
    // Some admitted requests never acquire a permit.
    if (room > 0) this.wake()
  }
}

interface Place {
  readonly waiter: Waiter
  readonly since: number
  previous: Place | undefined
  next: Place | undefined
}

/**
 * Refuses after a wait, not at once by an estimate: clients would return immediately. A linked
 * list, because a `Set` finds its first element slowly after many deletions.
 */
class WaitQueue {
  readonly #limits: WaitLimits
  #first: Place | undefined
  #last: Place | undefined
  #length = 0
  /** For the first waiter, whose wait ends first. */
  #timer: NodeJS.Timeout | undefined

  constructor(limits: WaitLimits) {
    this.#limits = limits
  }

  get length() {
    return this.#length
  }

  add(waiter: Waiter): Place | undefined {
    if (this.#length >= this.#limits.maxWaiters) {
      waiter.refuse(this.#refusal())
      return
    }
    const place: Place = { waiter, since: performance.now(), previous: this.#last, next: undefined }
    if (this.#last) this.#last.next = place
    else this.#first = place
    this.#last = place
    this.#length++
    this.#timer ??= this.#startTimer(this.#limits.maxWaitMs)
    return place
  }

  admitFirst(): boolean {
    const first = this.#first
    if (!first) return false
    this.remove(first)
    first.waiter.admit()
    return true
  }

  remove(place: Place) {
    const { previous, next, since } = place
    if (previous) previous.next = next
    else this.#first = next
    if (next) next.previous = previous
    else this.#last = previous
    // A removed place in old space would keep its successors alive.
    place.previous = place.next = undefined
    this.#length--
    this.#limits.onWait?.(performance.now() - since)
  }

  #startTimer(ms: number): NodeJS.Timeout {
    return setTimeout(() => this.#refuseOverdue(), ms).unref()
  }

  #refuseOverdue() {
    // Node's timers may fire a millisecond early.
    const overdueSince = performance.now() - this.#limits.maxWaitMs + 1
    for (let first = this.#first; first && first.since <= overdueSince; first = this.#first) {
      this.remove(first)
      first.waiter.refuse(this.#refusal())
    }
    this.#timer = this.#first && this.#startTimer(Math.ceil(this.#first.since - overdueSince + 1))
  }

  #refusal() {
    return overloaded('The database is busy: try again shortly', this.#limits.maxWaitMs)
  }
}
