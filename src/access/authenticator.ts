import { createLRU } from 'lru.min'
import type { Db } from '../db/database.ts'
import type { Subject } from '../roles.ts'
import type { Valkey } from '../valkey.ts'
import { deleteCredentials, findSubject, findValid, isToken } from './credentials.ts'
import type { RateLimits } from './limits.ts'

/** A credential whose revocation was not signalled is valid for as long. */
const CACHED_MS = 10_000
const MAX_CACHED = 10_000
const CHECK_OPEN_MS = 5_000

/** For revoked credentials. */
const CHANNEL = 'access'

type Found = Subject | undefined

interface Entry {
  found: Found | Promise<Found>
  until: number
}

type Signals = Pick<Valkey, 'publish' | 'subscribe'>

/** Finds out whose a token is; cached. */
export class Authenticator {
  readonly #db: Db
  readonly #cache = createLRU<string, Entry>({ max: MAX_CACHED })
  readonly #listeners = new Set<(credentialId: string) => void>()
  readonly #limits: RateLimits | undefined
  readonly #signals: Signals | undefined
  #revocations = 0

  constructor(db: Db, limits?: RateLimits, signals?: Signals) {
    this.#db = db
    this.#limits = limits
    this.#signals = signals
    signals?.subscribe(CHANNEL, (ids) => this.#drop(new Set(ids as string[])))
  }

  /**
   * Undefined for a token that is unknown, revoked or expired.
   *
   * @throws AppError `rate_limited` for a client that has sent many of them.
   */
  identify(token: string, client?: string): Found | Promise<Found> {
    // Not remembered: it may be of any length.
    if (!isToken(token)) return undefined
    const cached = this.#cache.get(token)
    if (cached && cached.until > Date.now()) return cached.found
    this.#limits?.expectTokens(client)
    return this.#load(token, client)
  }

  findCached(token: string): Found {
    const found = this.#cache.peek(token)?.found
    return found instanceof Promise ? undefined : found
  }

  /** Revokes credentials of an account in all processes; returns their number. */
  async revoke(...which: Parameters<typeof deleteCredentials>): Promise<number> {
    const ids = await deleteCredentials(...which)
    this.#drop(new Set(ids))
    if (ids.length > 0) this.#signals?.publish(CHANNEL, ids)
    return ids.length
  }

  /**
   * Checks now and then whether open connections have lost their credential or scopes.
   */
  watch(listOpen: () => Subject[]): () => void {
    const timer = setInterval(() => void this.#check(listOpen()), CHECK_OPEN_MS).unref()
    return () => clearInterval(timer)
  }

  onRevoke(listener: (credentialId: string) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  async #check(open: Subject[]) {
    try {
      const valid = await findValid(this.#db, open.map(toId))
      const ended = open.filter(({ credential, scopes }) => {
        const left = valid.get(credential.id)
        return !left || !scopes.isSubsetOf(left)
      })
      this.#drop(new Set(ended.map(toId)))
    } catch {
      // Without its database the service keeps its connections.
    }
  }

  #drop(ids: ReadonlySet<string>) {
    if (ids.size === 0) return
    this.#revocations++
    for (const [token, { found }] of this.#cache.entries())
      if (found && !(found instanceof Promise) && ids.has(found.credential.id))
        this.#cache.delete(token)
    for (const id of ids) for (const listener of this.#listeners) listener(id)
  }

  /** Concurrent calls share one look-up. */
  #load(token: string, client: string | undefined): Promise<Found> {
    const found = this.#find(token).then(
      (subject) => {
        if (!subject) this.#limits?.countUnknownToken(client)
        entry.found = subject
        entry.until = Math.min(Date.now() + CACHED_MS, subject?.expiresAt ?? Infinity)
        return subject
      },
      (error) => {
        if (this.#cache.peek(token) === entry) this.#cache.delete(token)
        throw error
      },
    )
    const entry: Entry = { found, until: Number.POSITIVE_INFINITY }
    this.#cache.set(token, entry)
    return found
  }

  /** Looks again if something was revoked meanwhile. */
  async #find(token: string): Promise<Found> {
    for (;;) {
      const before = this.#revocations
      const subject = await findSubject(this.#db, token)
      if (this.#revocations === before) return subject
    }
  }
}

const toId = ({ credential }: Subject) => credential.id
