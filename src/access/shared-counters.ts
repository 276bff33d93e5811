import { Redis } from 'ioredis'
import { RateLimiterRedis, RateLimiterRes } from 'rate-limiter-flexible'
import { type Log, Repeats } from '../log.ts'
import { LIMITS, type LimitName, mapLimits, type Usage } from './limits.ts'

const TIMEOUT_MS = 200
/** After a failure, so that requests do not all wait. */
const PAUSE_MS = 2_000

/** Counts in Valkey for all processes. While that fails, each process counts for itself. */
export class SharedCounters implements Disposable {
  readonly #valkey: Redis
  readonly #limiters: Record<LimitName, RateLimiterRedis>
  readonly #log: Log
  readonly #failures = new Repeats()
  #pausedUntil = 0

  constructor(url: string, log: Log) {
    this.#log = log
    this.#valkey = new Redis(url, {
      connectTimeout: PAUSE_MS,
      commandTimeout: TIMEOUT_MS,
      maxRetriesPerRequest: 0,
      enableOfflineQueue: false,
      retryStrategy: () => PAUSE_MS,
    })
    this.#valkey.on('error', this.#report)
    this.#limiters = mapLimits((limit) => {
      const { points, seconds: duration } = LIMITS[limit]
      const keyPrefix = `offloop:limit:${limit}`
      return new RateLimiterRedis({ storeClient: this.#valkey, keyPrefix, points, duration })
    })
  }

  async add(limit: LimitName, key: string): Promise<Usage | undefined> {
    if (this.#valkey.status !== 'ready' || Date.now() < this.#pausedUntil) return undefined
    try {
      return toUsage(await this.#limiters[limit].consume(key))
    } catch (thrown) {
      return thrown instanceof RateLimiterRes ? toUsage(thrown) : this.#report(thrown)
    }
  }

  forget(limit: LimitName, key: string): void {
    this.#limiters[limit].delete(key).catch(this.#report)
  }

  [Symbol.dispose]() {
    this.#valkey.disconnect()
  }

  #report = (error: unknown): undefined => {
    this.#pausedUntil = Date.now() + PAUSE_MS
    const message = 'Valkey fails: each process limits requests for itself'
    const logOthers = (failures: number) => this.#log.warn({ failures }, message)
    if (this.#failures.isFirst('', logOthers)) this.#log.warn({ err: error }, message)
  }
}

const toUsage = ({ consumedPoints, msBeforeNext }: RateLimiterRes): Usage => ({
  count: consumedPoints,
  endsAt: Date.now() + msBeforeNext,
})
