import { performance } from 'node:perf_hooks'
import { type AppError, overloaded } from '../errors.ts'

/** Enough that no permit is ever without work. */
const WAITING_PER_PERMIT = 4

export interface WaitLimits {
  /** Protects memory only: load meets `maxWaitMs` first. */
  maxWaiters: number
  maxWaitMs: number
  /** Called with the milliseconds that each waited, whether or not it was admitted. */
  onWait?: ((ms: number) => void) | undefined
}

interface Waiter {
  readonly admit: () => void
  readonly refuse: (error: AppError) => void
}

/** First in, first out, with a bound on the time of a wait, which mysql2's own queue lacks. */
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
   * Acquires a permit; returns undefined where one is free.
   *
   * @throws AppError `overloaded` after `maxWaitMs`, or when `maxWaiters` wait; the signal's reason.
   */
  acquire(signal?: AbortSignal): Promise<void> | undefined {
    if (this.#inUse < this.permits) {
      this.#inUse++
      return
    }
    if (signal?.aborted) return Promise.reject(signal.reason)
    return new Promise((resolve, reject) => this.#wait(signal, resolve, reject))
  }

  /** Hands the permit to the first in the queue, or makes it free. */
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
 * Requests that will need a permit, not begun while many callers wait for one: a request that has
 * only been read takes less memory and is cheaper to refuse (docs/decisions/014-backlog.md).
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

  /** Admits a request now or when few callers wait; refuses it as `acquire` does. */
  add(waiter: Waiter): void {
    if (this.#queue.length === 0 && this.#room > 0) waiter.admit()
    else this.#queue.add(waiter)
  }

  /** Call it whenever a caller has left the semaphore's queue. */
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
    // Some of those that were admitted never ask for a permit.
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
 * Refuses waiters after a wait, not at once by an estimate: clients would return immediately. It is
 * a linked list because a `Set` is slow to give its first element after many deletions.
 */
class WaitQueue {
  readonly #limits: WaitLimits
  #first: Place | undefined
  #last: Place | undefined
  #length = 0
  /** For the first only, whose wait ends first. */
  #timer: NodeJS.Timeout | undefined

  constructor(limits: WaitLimits) {
    this.#limits = limits
  }

  get length() {
    return this.#length
  }

  /** Returns no place where the waiter was refused at once. */
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
    // In old space it would keep its successors alive.
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
