import { performance } from 'node:perf_hooks'
import { type AppError, overloaded } from '../errors.ts'

export interface WaitQueueOptions {
  /** How many may wait. Protects memory only: the bound that load meets is `maxWaitMs`. */
  maxWaiters: number
  /** How long one may wait, in milliseconds. */
  maxWaitMs: number
  /** Called with the time that each waited, in milliseconds, whether or not it was admitted. */
  onWait?: ((ms: number) => void) | undefined
}

/** What waits: one of its functions is called, once. */
export interface Waiter {
  readonly admit: () => void
  readonly refuse: (error: AppError) => void
}

/** A waiter's place in the queue. */
export interface Place {
  readonly waiter: Waiter
  readonly since: number
  previous: Place | undefined
  next: Place | undefined
}

/**
 * A first-in, first-out queue that bounds the time of a wait.
 *
 * A waiter is refused after it has waited, never at once by an estimate of its wait: a refused
 * client asks again immediately, so that refusals would take the event loop's time from answers
 * (docs/decisions/002-own-driver.md).
 */
export class WaitQueue {
  readonly #options: WaitQueueOptions
  // A list that each waiter can leave from the middle. A `Set` is slow to give its first element
  // after many deletions.
  #first: Place | undefined
  #last: Place | undefined
  #length = 0
  /**
   * Runs for the head of the queue only: every wait has the same bound, so the head's ends first.
   */
  #timer: NodeJS.Timeout | undefined

  constructor(options: WaitQueueOptions) {
    this.#options = options
  }

  /** How many wait. */
  get length() {
    return this.#length
  }

  /**
   * Puts a waiter at the end. It is refused with AppError `overloaded`: after `maxWaitMs`, or at
   * once when `maxWaiters` wait, and then it has no place.
   */
  add(waiter: Waiter): Place | undefined {
    if (this.#length >= this.#options.maxWaiters) {
      waiter.refuse(this.#refusal())
      return
    }
    const place: Place = { waiter, since: performance.now(), previous: this.#last, next: undefined }
    if (this.#last) this.#last.next = place
    else this.#first = place
    this.#last = place
    this.#length++
    this.#timer ??= this.#startTimer(this.#options.maxWaitMs)
    return place
  }

  /** Admits the first, and says whether there was one. */
  admitFirst(): boolean {
    const first = this.#first
    if (!first) return false
    this.remove(first)
    first.waiter.admit()
    return true
  }

  /** Takes a waiter out; none of its functions is called. */
  remove(place: Place) {
    const { previous, next, since } = place
    if (previous) previous.next = next
    else this.#first = next
    if (next) next.previous = previous
    else this.#last = previous
    // Otherwise a place that the garbage collector has promoted would keep all that came after it
    // alive.
    place.previous = place.next = undefined
    this.#length--
    this.#options.onWait?.(performance.now() - since)
  }

  /**
   * Goes on when its waiter leaves: when it fires, it is started again for the first in the queue.
   */
  #startTimer(ms: number): NodeJS.Timeout {
    return setTimeout(() => this.#refuseOverdue(), ms).unref()
  }

  #refuseOverdue() {
    // A millisecond early counts as overdue: that is how exact timers are.
    const overdueSince = performance.now() - this.#options.maxWaitMs + 1
    for (let first = this.#first; first && first.since <= overdueSince; first = this.#first) {
      this.remove(first)
      first.waiter.refuse(this.#refusal())
    }
    this.#timer = this.#first && this.#startTimer(Math.ceil(this.#first.since - overdueSince + 1))
  }

  /** One that comes to the end of such a queue now will wait for about as long as this one did. */
  #refusal() {
    return overloaded('The database is busy: try again shortly', this.#options.maxWaitMs)
  }
}
