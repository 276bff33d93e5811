import { performance } from 'node:perf_hooks'
import { overloaded } from '../errors.ts'

export interface GateOptions {
  /** How many may be inside at once: the size of the pool behind the gate. */
  permits: number
  /** How many may wait; one more is refused at once. */
  maxWaiters: number
  /** How long one may wait, in milliseconds. */
  maxWaitMs: number
  /** Told how long one waited, in milliseconds, whether or not it got in. */
  onWait?: ((ms: number) => void) | undefined
}

interface Waiter {
  admit: () => void
  refuse: (reason: unknown) => void
}

/**
 * A semaphore with a short queue. mysql2's own queue has neither a length nor a deadline: when the database slows down,
 * requests would pile up behind it until every one of them is too late. Here they are told so while that is still news.
 */
export class Gate {
  readonly #options: GateOptions
  readonly #waiters = new Set<Waiter>()
  #inside = 0

  constructor(options: GateOptions) {
    this.#options = options
  }

  /** How many may be inside at once. */
  get permits() {
    return this.#options.permits
  }

  get waiting() {
    return this.#waiters.size
  }

  get inside() {
    return this.#inside
  }

  /**
   * Takes a permit; give it back with `leave()`.
   *
   * @throws AppError `overloaded` when the queue is full or the wait too long; the signal's reason when it aborts first.
   */
  enter(signal?: AbortSignal): Promise<void> | undefined {
    if (this.#inside < this.#options.permits) {
      this.#inside++
      return
    }
    return this.#wait(signal)
  }

  leave() {
    const [next] = this.#waiters
    if (next) next.admit()
    else this.#inside--
  }

  async #wait(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted()
    if (this.#waiters.size >= this.#options.maxWaiters) throw busy()
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const waiter: Waiter = { admit: () => leaveQueue(resolve), refuse: (reason) => leaveQueue(() => reject(reason)) }
    const onAbort = () => waiter.refuse(signal?.reason)
    const timer = setTimeout(() => waiter.refuse(busy()), this.#options.maxWaitMs)
    const since = performance.now()
    const leaveQueue = (settle: () => void) => {
      this.#options.onWait?.(performance.now() - since)
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
      this.#waiters.delete(waiter)
      settle()
    }
    signal?.addEventListener('abort', onAbort)
    this.#waiters.add(waiter)
    return promise
  }
}

const busy = () => overloaded('The database is busy: try again shortly')
