import { RateLimiterRedis, RateLimiterRes } from 'rate-limiter-flexible'
import type { Valkey } from '../valkey.ts'
import { LIMITS, type LimitName, mapLimits, type Usage } from './limits.ts'

/** A request waits for as long. */
const TIMEOUT_MS = 200
/** After a failure, so that requests do not all wait. */
const PAUSE_MS = 2_000

/** Counts in Valkey for all processes. While that fails, each process counts for itself. */
export class SharedCounters {
  readonly #valkey: Valkey
  readonly #limiters: Record<LimitName, RateLimiterRedis>
  #pausedUntil = 0

  constructor(valkey: Valkey) {
    this.#valkey = valkey
    this.#limiters = mapLimits((limit) => {
      const { points, seconds: duration } = LIMITS[limit]
      const keyPrefix = `offloop:limit:${limit}`
      return new RateLimiterRedis({ storeClient: valkey.commands, keyPrefix, points, duration })
    })
  }

  async add(limit: LimitName, key: string): Promise<Usage | undefined> {
    if (!this.#valkey.isReady || Date.now() < this.#pausedUntil) return undefined
    try {
      return toUsage(await inTime(this.#limiters[limit].consume(key)))
    } catch (thrown) {
      return thrown instanceof RateLimiterRes ? toUsage(thrown) : this.#pause(thrown)
    }
  }

  forget(limit: LimitName, key: string): void {
    this.#limiters[limit].delete(key).catch((error) => this.#pause(error))
  }

  #pause(error: unknown): undefined {
    this.#pausedUntil = Date.now() + PAUSE_MS
    return this.#valkey.report(error)
  }
}

async function inTime<Result>(result: Promise<Result>): Promise<Result> {
  const { promise, reject } = Promise.withResolvers<never>()
  const fail = () => reject(new Error(`Expected an answer of Valkey within ${TIMEOUT_MS} ms`))
  // Timers fire before messages: after a block of the event loop, an answer may have arrived.
  const timer = setTimeout(() => setImmediate(fail), TIMEOUT_MS)
  try {
    return await Promise.race([result, promise])
  } finally {
    clearTimeout(timer)
  }
}

const toUsage = ({ consumedPoints, msBeforeNext }: RateLimiterRes): Usage => ({
  count: consumedPoints,
  endsAt: Date.now() + msBeforeNext,
})
