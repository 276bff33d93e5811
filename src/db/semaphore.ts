import { performance } from 'node:perf_hooks'
import { type AppError, overloaded } from '../errors.ts'

/** With this many callers waiting for each permit, no permit is ever without work. */
const CALLERS_PER_PERMIT = 4

export interface WaitLimits {
  /** Protects memory only: load meets `maxWaitMs` first. */
  maxWaiters: number
  maxWaitMs: number
  /** Called with the milliseconds that each waited, whether or not it was admitted. */
  onWait?: ((ms: number) => void) | undefined
}

/** One of its functions is called, once, unless it leaves the queue. */
interface Waiter {
  readonly admit: () => void
  readonly refuse: (error: AppError) => void
}

/**
 * A first-in, first-out semaphore that bounds the time of a wait. mysql2's own queue has no bound:
 * when the database slows down, requests would pile up in it until all have missed their deadlines.
 */
export class Semaphore {
  /** How many callers may hold a permit at once. */
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
   * Acquires a permit, to be given back by `release()`. Returns undefined where one is free.
   *
   * @throws AppError `overloaded` after `maxWaitMs`, or at once when `maxWaiters` wait; the
   * signal's reason when it aborts.
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
 * The queue of requests that will need a permit and are not begun while many callers wait for one.
 * A request that has only been read takes a third of the memory of one inside its handler, and is
 * cheaper to refuse (docs/decisions/014-backlog.md).
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

  /**
   * Admits a request at once, or after those before it when few callers wait for a permit; refuses
   * it with AppError `overloaded` after `maxWaitMs`, or when `maxWaiters` wait.
   */
  add(waiter: Waiter): void {
    if (this.#queue.length === 0 && this.#room > 0) waiter.admit()
    else this.#queue.add(waiter)
  }

  /** To be called whenever a caller has left the semaphore's queue. */
  wake(): void {
    if (this.#queue.length > 0) this.#turn ??= setImmediate(this.#admit)
  }

  get #room() {
    return this.#semaphore.permits * CALLERS_PER_PERMIT - this.#semaphore.waiting
  }

  #admit = () => {
    this.#turn = undefined
    const room = this.#room
    let free = room
    while (free > 0 && this.#queue.admitFirst()) free--
    // Not all that were admitted ask for a permit, and some do later. The next turn knows.
    if (room > 0) this.wake()
  }
}

/** A place in the queue, which its waiter can leave from the middle. */
interface Place {
  readonly waiter: Waiter
  readonly since: number
  previous: Place | undefined
  next: Place | undefined
}

/**
 * A waiter is refused after it has waited, never at once by an estimate: a refused client asks
 * again immediately, so that refusals would take the event loop's time from answers.
 */
class WaitQueue {
  readonly #limits: WaitLimits
  // A linked list, because a `Set` is slow to give its first element after many deletions.
  #first: Place | undefined
  #last: Place | undefined
  #length = 0
  /** Runs for the first only: every wait has the same bound, so the first one's ends first. */
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

  /** Returns whether there was one. */
  admitFirst(): boolean {
    const first = this.#first
    if (!first) return false
    this.remove(first)
    first.waiter.admit()
    return true
  }

  /** Calls none of the waiter's functions. */
  remove(place: Place) {
    const { previous, next, since } = place
    if (previous) previous.next = next
    else this.#first = next
    if (next) next.previous = previous
    else this.#last = previous
    // A place that the garbage collector has promoted would keep its successors alive.
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

  /** A client that comes to the end of such a queue will wait for about as long. */
  #refusal() {
    return overloaded('The database is busy: try again shortly', this.#limits.maxWaitMs)
  }
}
