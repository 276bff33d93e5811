import { performance } from 'node:perf_hooks'
import { AppError, overloaded } from '../errors.ts'
import type { Call, Priority } from './call.ts'
import type { Crew, CrewOptions } from './crew.ts'
import type { Queue } from './queue.ts'

export interface AdmissionOptions extends Pick<CrewOptions, 'max'> {
  /** How many calls of each priority may wait. */
  maxQueued: number
  /** When it aborts, nothing new starts: queued calls are refused, running ones go on. */
  stopping?: AbortSignal | undefined
}

/** Decides which calls a pool takes on: no more than may wait, and none that would wait in vain. */
export class Admission {
  readonly #options: AdmissionOptions
  readonly #queue: Queue
  readonly #crew: Crew

  constructor(options: AdmissionOptions, queue: Queue, crew: Crew) {
    this.#options = options
    this.#queue = queue
    this.#crew = crew
  }

  /**
   * Lets a call in, or throws.
   *
   * @throws AppError `overloaded` when too many wait, or when it could not start before its time is up; `unavailable`
   * while stopping.
   */
  check({ accepted, priority, options: { timeoutMs } }: Call): void {
    if (this.#crew.isClosing) throw stopping()
    if (accepted) return
    if (this.#options.stopping?.aborted) throw stopping()
    if (this.#queue.sizeOf(priority) >= this.#options.maxQueued)
      throw overloaded('Too much work is waiting for a thread: try again later', this.#waitMs(priority))
    if (timeoutMs === undefined || this.#crew.idle.length > 0) return
    const lateMs = this.#waitMs(priority) - timeoutMs
    if (lateMs > 0) throw overloaded('The work before this will take too long: try again later', lateMs)
  }

  /** How long a newcomer will probably wait, judged by how long the tasks before it took in the past. */
  #waitMs(priority: Priority): number {
    const now = performance.now()
    let aheadMs = this.#queue.waitMs(priority)
    for (const { expectedMs, since } of this.#crew) aheadMs += Math.max(0, expectedMs - (now - since))
    return aheadMs / this.#options.max
  }
}

/** Why nothing new is taken on any more. */
export const stopping = () => new AppError('unavailable', 'The service is stopping', { retryAfter: 1 })
