import { WaitQueue, type WaitQueueOptions } from './wait-queue.ts'

export interface SemaphoreOptions extends WaitQueueOptions {
  /** How many callers may hold a permit at once: the number of connections behind the semaphore. */
  permits: number
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

  constructor({ permits, ...options }: SemaphoreOptions) {
    this.permits = permits
    this.#queue = new WaitQueue(options)
  }

  /** How many callers wait. */
  get waiting() {
    return this.#queue.length
  }

  /** How many permits are in use. */
  get inUse() {
    return this.#inUse
  }

  /**
   * Acquires a permit; release it with `release()`. Returns undefined where one is free.
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
