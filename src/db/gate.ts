import { performance } from 'node:perf_hooks'
import { overloaded } from '../errors.ts'

export interface GateOptions {
  /** How many callers may hold a permit at once: the number of connections behind the semaphore. */
  permits: number
  /** How many callers may wait. Protects memory only: the bound that load meets is `maxWaitMs`. */
  maxWaiters: number
  /** How long one caller may wait, in milliseconds. */
  maxWaitMs: number
  /** Called with the time that a caller waited, in milliseconds, whether or not it got a permit. */
  onWait?: ((ms: number) => void) | undefined
}

/** One caller in the queue. */
interface Waiter {
  readonly since: number
  readonly signal: AbortSignal | undefined
  readonly resolve: () => void
  readonly reject: (reason: unknown) => void
  readonly onAbort: () => void
  previous: Waiter | undefined
  next: Waiter | undefined
}

/**
 * A first-in, first-out semaphore that bounds the time of a wait. mysql2's own queue has no bound: when the database slows
 * down, requests would pile up in it until all have missed their deadlines.
 *
 * A caller is refused after it has waited, never at once by an estimate of its wait: a refused client asks again
 * immediately, so that refusals would take the event loop's time from answers (docs/decisions/002-own-driver.md).
 */
export class Gate {
  readonly #options: GateOptions
  // A list that each waiter can leave from the middle. A `Set` is slow to give its first element after many deletions.
  #first: Waiter | undefined
  #last: Waiter | undefined
  #waiting = 0
  #inside = 0
  /** Runs for the head of the queue only: every wait has the same bound, so the head's ends first. */
  #timer: NodeJS.Timeout | undefined

  constructor(options: GateOptions) {
    this.#options = options
  }

  /** How many callers may hold a permit at once. */
  get permits() {
    return this.#options.permits
  }

  /** How many callers wait. */
  get waiting() {
    return this.#waiting
  }

  /** How many permits are in use. */
  get inside() {
    return this.#inside
  }

  /**
   * Acquires a permit; release it with `leave()`. Returns undefined where one is free.
   *
   * @throws AppError `overloaded` after `maxWaitMs`, or at once when `maxWaiters` wait; the signal's reason when it aborts.
   */
  enter(signal?: AbortSignal): Promise<void> | undefined {
    if (this.#inside < this.#options.permits) {
      this.#inside++
      return
    }
    if (signal?.aborted) return Promise.reject(signal.reason)
    if (this.#waiting >= this.#options.maxWaiters) return Promise.reject(this.#refusal())
    return new Promise((resolve, reject) => this.#add(signal, resolve, reject))
  }

  /** Hands the permit to the first in the queue, or makes it free. */
  leave() {
    const next = this.#first
    if (!next) {
      this.#inside--
      return
    }
    this.#remove(next)
    next.resolve()
  }

  #add(signal: AbortSignal | undefined, resolve: () => void, reject: (reason: unknown) => void) {
    const waiter: Waiter = {
      since: performance.now(),
      signal,
      resolve,
      reject,
      previous: this.#last,
      next: undefined,
      onAbort: () => {
        this.#remove(waiter)
        reject(signal?.reason)
      },
    }
    if (this.#last) this.#last.next = waiter
    else this.#first = waiter
    this.#last = waiter
    this.#waiting++
    signal?.addEventListener('abort', waiter.onAbort)
    this.#timer ??= this.#startTimer(this.#options.maxWaitMs)
  }

  #remove(waiter: Waiter) {
    const { previous, next, signal, since, onAbort } = waiter
    if (previous) previous.next = next
    else this.#first = next
    if (next) next.previous = previous
    else this.#last = previous
    // Otherwise a waiter that the garbage collector has promoted would keep all that came after it alive.
    waiter.previous = waiter.next = undefined
    this.#waiting--
    signal?.removeEventListener('abort', onAbort)
    this.#options.onWait?.(performance.now() - since)
  }

  /** Not stopped when its waiter leaves: at its end it is set for whoever is first by then. */
  #startTimer(ms: number): NodeJS.Timeout {
    return setTimeout(() => this.#refuseOverdue(), ms).unref()
  }

  #refuseOverdue() {
    const { maxWaitMs } = this.#options
    // A millisecond early counts as overdue: that is how exact timers are.
    const overdueSince = performance.now() - maxWaitMs + 1
    for (let first = this.#first; first && first.since <= overdueSince; first = this.#first) {
      this.#remove(first)
      first.reject(this.#refusal())
    }
    this.#timer = this.#first && this.#startTimer(Math.ceil(this.#first.since - overdueSince + 1))
  }

  /** Whoever waits at the end of a full queue now waits for about as long as this caller did. */
  #refusal() {
    return overloaded('The database is busy: try again shortly', this.#options.maxWaitMs)
  }
}
