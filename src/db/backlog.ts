import type { Semaphore } from './semaphore.ts'
import { type Waiter, WaitQueue, type WaitQueueOptions } from './wait-queue.ts'

/**
 * With so many callers that wait for each connection nothing more is begun: enough that no
 * connection is ever without work.
 */
const CALLERS_PER_CONNECTION = 4

/**
 * What will need a connection, and is not begun while many callers wait for one. A request that has
 * only been read keeps a third of the memory that it keeps inside its handler, and to refuse it
 * costs a fraction (docs/decisions/014-backlog.md).
 */
export class Backlog {
  readonly #semaphore: Semaphore
  readonly #queue: WaitQueue
  #turn: NodeJS.Immediate | undefined

  constructor(semaphore: Semaphore, options: WaitQueueOptions) {
    this.#semaphore = semaphore
    this.#queue = new WaitQueue(options)
  }

  /** How many wait. */
  get waiting() {
    return this.#queue.length
  }

  /**
   * Admits now, or when those before it have been admitted and few wait at the semaphore; or refuses as
   * `WaitQueue.add` does.
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
    return this.#semaphore.permits * CALLERS_PER_CONNECTION - this.#semaphore.waiting
  }

  #admit = () => {
    this.#turn = undefined
    const room = this.#room
    let free = room
    while (free > 0 && this.#queue.admitFirst()) free--
    // Not all that were admitted come to the semaphore: some fail before, and some are read first. In
    // the next turn it is known.
    if (room > 0) this.wake()
  }
}
