import type { EventEmitter } from 'node:events'
import type { Socket } from 'node:net'
import { createLRU } from 'lru.min'
import { AppError, withoutStack } from '../errors.ts'
import { type AppContext, getContext, type Limit, type Limiter } from '../http/context.ts'
import type { AppResponse } from '../http/headers.ts'
import type { Subject } from '../roles.ts'
import { isLocal, toNetwork } from './client.ts'
import type { SharedCounters } from './shared-counters.ts'

export const LIMITS = {
  read: { points: 6_000, seconds: 60 },
  write: { points: 600, seconds: 60 },
  /** Work for all threads. */
  heavy: { points: 120, seconds: 60 },
  upload: { points: 30, seconds: 60 },
  login: { points: 20, seconds: 60 },
  /** Unknown tokens, each of which is looked up. */
  token: { points: 60, seconds: 60 },
  /** Wrong passwords of an account from one network; the waits grow. */
  guess: { points: 5, seconds: 60 },
  guesses: { points: 10, seconds: 900 },
  manyGuesses: { points: 20, seconds: 3_600 },
  /** From all networks in which the owner has no session. */
  anyGuess: { points: 100, seconds: 3_600 },
} as const

export type LimitName = keyof typeof LIMITS

const GUESSES = ['guess', 'guesses', 'manyGuesses'] as const
/** Per limit; beyond it those idle longest are forgotten. */
const MAX_COUNTED = 100_000
const SAFE_METHODS = new Set(['GET', 'HEAD', 'OPTIONS'])

/** What a caller has used of a limit. */
export interface Usage {
  count: number
  /** In milliseconds since 1970. */
  endsAt: number
}

interface LimitsOptions {
  unlimited: 'all' | 'local' | 'none'
  shared?: SharedCounters | undefined
}

/** Counts what callers do, in this process and in all. */
export class RateLimits implements Limiter {
  readonly #options: LimitsOptions
  readonly #usages = mapLimits(() => createLRU<string, Usage>({ max: MAX_COUNTED }))

  constructor(options: LimitsOptions) {
    this.#options = options
  }

  /** Whether nothing limits a client, as in load tests. */
  isUnlimited(client: string | undefined): boolean {
    const { unlimited } = this.#options
    // Tests that call `app.request()` have no client.
    if (client === undefined || unlimited === 'all') return true
    return unlimited === 'local' && isLocal(client)
  }

  /** @throws AppError `rate_limited`. */
  count(c: AppContext, limit: Limit): Promise<void> | undefined {
    const { client, subject } = getContext(c)
    if (this.isUnlimited(client)) return undefined
    const usage = this.#add(limit, subject?.id ?? toNetwork(client as string))
    const outgoing = c.env?.outgoing
    if (!(usage instanceof Promise)) return admit(limit, usage, outgoing)
    return usage.then((found) => admit(limit, found, outgoing))
  }

  /** Why a request is refused before it has a route; does not count it. */
  findRefusal(outgoing: AppResponse, subject: Subject | undefined): AppError | undefined {
    const { client, req } = outgoing
    if (this.isUnlimited(client)) return undefined
    const limit = SAFE_METHODS.has(req.method ?? '') ? 'read' : 'write'
    const usage = this.#find(limit, subject?.id ?? toNetwork(client))
    if (!usage || usage.count < LIMITS[limit].points) return undefined
    outgoing.rateLimit = toHeaders(limit, usage)
    return rateLimited(limit, usage)
  }

  /**
   * Counts an attempt before the password is checked, so that concurrent ones are counted, too.
   *
   * @param isKnown whether the owner has a session in the client's network: strangers then cannot
   * lock the owner out.
   * @returns a function for a right password, which forgets the attempts.
   * @throws AppError `rate_limited`.
   */
  async countGuess(email: string, client: string | undefined, isKnown: boolean) {
    if (this.isUnlimited(client)) return () => {}
    const key = `${email} ${toNetwork(client as string)}`
    const keys: [LimitName, string][] = GUESSES.map((limit) => [limit, key])
    if (!isKnown) keys.push(['anyGuess', email])
    for (const [limit, key] of keys) admit(limit, await this.#add(limit, key))
    return () => {
      for (const [limit, key] of keys) this.#forget(limit, key)
    }
  }

  /** @throws AppError `rate_limited`. */
  expectTokens(client: string | undefined): void {
    if (this.isUnlimited(client)) return
    const usage = this.#find('token', toNetwork(client as string))
    if (usage && usage.count >= LIMITS.token.points) throw rateLimited('token', usage)
  }

  countUnknownToken(client: string | undefined): void {
    if (!this.isUnlimited(client)) this.#addOwn('token', toNetwork(client as string))
  }

  #find(limit: LimitName, key: string): Usage | undefined {
    const usage = this.#usages[limit].get(key)
    return usage && usage.endsAt > Date.now() ? usage : undefined
  }

  /** Refuses by its own count without asking the others. */
  #add(limit: LimitName, key: string): Usage | Promise<Usage> {
    const usage = this.#addOwn(limit, key)
    const { shared } = this.#options
    if (!shared || usage.count > LIMITS[limit].points) return usage
    return shared.add(limit, key).then((all) => {
      if (all) Object.assign(usage, { ...all, count: Math.max(usage.count, all.count) })
      return usage
    })
  }

  #addOwn(limit: LimitName, key: string): Usage {
    const usage = this.#find(limit, key)
    if (usage) {
      usage.count++
      return usage
    }
    const first = { count: 1, endsAt: Date.now() + LIMITS[limit].seconds * 1_000 }
    this.#usages[limit].set(key, first)
    return first
  }

  #forget(limit: LimitName, key: string) {
    this.#usages[limit].delete(key)
    this.#options.shared?.forget(limit, key)
  }
}

/**
 * Limits each client's connections, or behind a proxy its requests in progress, event streams and
 * websockets.
 */
export class Connections {
  readonly #limits: RateLimits
  readonly #max: number
  readonly #behindProxy: boolean
  readonly #open = new Map<string, number>()

  constructor(limits: RateLimits, max: number, behindProxy: boolean) {
    this.#limits = limits
    this.#max = max
    this.#behindProxy = behindProxy
  }

  admitSocket(socket: Socket): boolean {
    return this.#behindProxy || this.#admit(socket.remoteAddress?.replace('::ffff:', ''), socket)
  }

  admitRequest(client: string, outgoing: EventEmitter): boolean {
    return !this.#behindProxy || this.#admit(client, outgoing)
  }

  admitUpgrade = this.admitRequest

  #admit(client: string | undefined, opened: EventEmitter): boolean {
    if (!client || this.#limits.isUnlimited(client)) return true
    const network = toNetwork(client)
    const open = this.#open.get(network) ?? 0
    if (open >= this.#max) return false
    this.#open.set(network, open + 1)
    opened.once('close', () => this.#leave(network))
    return true
  }

  #leave(network: string) {
    const open = this.#open.get(network) ?? 0
    if (open > 1) this.#open.set(network, open - 1)
    else this.#open.delete(network)
  }
}

export const mapLimits = <T>(make: (limit: LimitName) => T) =>
  Object.fromEntries(
    Object.keys(LIMITS).map((limit) => [limit, make(limit as LimitName)]),
  ) as Record<LimitName, T>

function admit(limit: LimitName, usage: Usage, outgoing?: AppResponse): undefined {
  if (outgoing) outgoing.rateLimit = toHeaders(limit, usage)
  if (usage.count > LIMITS[limit].points) throw rateLimited(limit, usage)
}

const secondsLeft = ({ endsAt }: Usage) => Math.max(1, Math.ceil((endsAt - Date.now()) / 1_000))

const POLICIES = mapLimits((limit) => {
  const { points, seconds } = LIMITS[limit]
  return `"${limit}";q=${points};w=${seconds}`
})

const toRemaining = (limit: LimitName, { count }: Usage) =>
  Math.max(0, LIMITS[limit].points - count)

/** By draft-ietf-httpapi-ratelimit-headers-11. */
const toHeaders = (limit: LimitName, usage: Usage) => ({
  'ratelimit-policy': POLICIES[limit],
  ratelimit: `"${limit}";r=${toRemaining(limit, usage)};t=${secondsLeft(usage)}`,
})

function rateLimited(limit: LimitName, usage: Usage): AppError {
  const retryAfter = secondsLeft(usage)
  const { points, seconds } = LIMITS[limit]
  const message =
    `The limit \`${limit}\`, ${points} in ${seconds} s, is used up: ` +
    `try again in ${retryAfter} s`
  return withoutStack(() => new AppError('rate_limited', message, { retryAfter }))
}
