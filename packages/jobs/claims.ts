import { performance } from 'node:perf_hooks'
import { sql } from 'kysely'
import { hasLimits, type JobHandler } from './job.ts'
import { claimWithinLimits } from './limits.ts'
import { listKinds } from './query.ts'
import {
  type Claim,
  claimQuery,
  idList,
  type JobStore,
  later,
  lockNamed,
  ORDER,
  toIds,
} from './store.ts'
import { type Trx, typed } from './tables.ts'

const LONG_WALK_MS = 10
/** After a long walk, if reads take less than SHORT_READ_MS. */
const RETRY_WALK_MS = 2_000
const SHORT_READ_MS = 5
/** Divided among the kinds. */
const READ_AHEAD = 500
const MIN_PER_KIND = 10
/** How long heads are used, or this multiple of the reading time if longer. */
const MIN_FRESH_MS = 100
const FRESH_PER_READ = 10

export interface ClaimsOptions {
  store: JobStore
  worker: string
  handlers: ReadonlyMap<string, JobHandler>
  leaseMs: number
  /** After which a kind is tried again whose limit is reached. */
  pollMs: number
}

export interface Claimed {
  claims: Claim[]
  /** Whether to claim again at once. */
  more: boolean
  retryMs?: number | undefined
}

interface Head {
  id: string
  kind: string
  priority: number
}

/**
 * Claims queued jobs, the most urgent and then the oldest of each queue first. The heads of all
 * kinds are read ahead without locks. A claim then walks each kind's part of the index and locks
 * the first free jobs. Where old row versions make that slow, it locks those read ahead by id.
 */
export class Claims {
  readonly #options: ClaimsOptions
  readonly #limited: ReadonlySet<string>
  readonly #failureKinds: readonly string[]
  readonly #perKind: number
  /** In the order in which they are claimed. */
  #heads: Head[] = []
  #cutKinds: ReadonlySet<string> = new Set()
  #readAt = Number.NEGATIVE_INFINITY
  #expiredAt = 0
  #readMs = 0
  #walkAgainAt = 0
  /** When to try again kinds whose limits are reached. */
  readonly #full = new Map<string, number>()
  /** Kinds that have a row to lock. */
  readonly #lockable = new Set<string>()
  /** The number of its last claim, by kind with limits; '' for all others. */
  readonly #turns = new Map<string, number>()
  #claimCount = 0

  constructor(options: ClaimsOptions) {
    this.#options = options
    const handlers = [...options.handlers.values()]
    const kindsOf = (some: readonly JobHandler[]) => some.map(({ job }) => job.name)
    this.#limited = new Set(kindsOf(handlers.filter(({ job }) => hasLimits(job))))
    this.#failureKinds = kindsOf(handlers.filter(({ onFailed }) => onFailed))
    this.#perKind = Math.max(MIN_PER_KIND, Math.floor(READ_AHEAD / handlers.length))
  }

  /** Reads the heads again before the next claim. */
  expire(): void {
    this.#expiredAt = performance.now()
  }

  /** Tries the kind again, of which a job has ended here. */
  release(kind: string): void {
    this.#full.delete(kind)
  }

  /**
   * Claims jobs without limits in one transaction, or those of one kind with limits.
   *
   * @param rooms how many jobs each queue has room for.
   */
  async claim(rooms: ReadonlyMap<string, number>): Promise<Claimed> {
    const heads = await this.#choose(rooms)
    const [first] = heads
    if (!first) return { claims: [], more: false }
    const claimed = this.#limited.has(first.kind)
      ? await this.#claimLimited(first.kind, heads.length)
      : { claims: await this.#claimFree(heads) }
    const { length } = claimed.claims
    // Others were quicker.
    if (length > 0 && length < heads.length) this.expire()
    return { ...claimed, more: this.#hasMore(rooms, heads.slice(0, length)) }
  }

  /** Kinds with queued jobs and without a handler here. */
  async findOtherKinds(): Promise<string[]> {
    const db = this.#options.store.open(false)
    const others = (await listKinds(db)).filter((kind) => !this.#options.handlers.has(kind))
    if (others.length === 0) return []
    const { rows } = await headsQuery(others, 1).execute(db)
    return rows.map(({ kind }) => kind)
  }

  /** Claims a job wherever it is in its queue. */
  claimNamed(id: string): Promise<Claim[]> {
    return this.#options.store.transaction(false, async (trx) =>
      this.#begin(trx, await lockNamed(trx, [id])),
    )
  }

  /** Takes heads that fit: in turn those without limits, or those of one kind. */
  async #choose(rooms: ReadonlyMap<string, number>): Promise<Head[]> {
    const isFresh = this.#isFresh
    if (!isFresh) await this.#read()
    const chosen = this.#take(rooms)
    if (chosen.length > 0 || !isFresh) return chosen
    await this.#read()
    return this.#take(rooms)
  }

  get #isFresh(): boolean {
    const freshMs = Math.max(MIN_FRESH_MS, FRESH_PER_READ * this.#readMs)
    return this.#readAt > this.#expiredAt && performance.now() < this.#readAt + freshMs
  }

  #take(rooms: ReadonlyMap<string, number>): Head[] {
    const left = new Map(rooms)
    const fitting = this.#heads.filter((head) => {
      if (!this.#isOpen(head.kind, left)) return false
      const queue = this.#queueOf(head)
      left.set(queue, (left.get(queue) ?? 0) - 1)
      return true
    })
    const groups = Map.groupBy(fitting, ({ kind }) => (this.#limited.has(kind) ? kind : ''))
    const turnOf = (group: string) => this.#turns.get(group) ?? 0
    const [group] = [...groups.keys()].sort((a, b) => turnOf(a) - turnOf(b))
    if (group === undefined) return []
    this.#turns.set(group, ++this.#claimCount)
    const taken = new Set(groups.get(group))
    this.#heads = this.#heads.filter((head) => !taken.has(head))
    return [...taken]
  }

  /** Not while all jobs of a kind are locked by others. */
  #hasMore(rooms: ReadonlyMap<string, number>, claimed: readonly Head[]): boolean {
    const left = new Map(rooms)
    for (const queue of claimed.map(this.#queueOf)) left.set(queue, (left.get(queue) ?? 0) - 1)
    const kinds = new Set(this.#heads.map(({ kind }) => kind))
    const all = claimed.length > 0 ? kinds.union(this.#cutKinds) : kinds
    return [...all].some((kind) => this.#isOpen(kind, left))
  }

  #isOpen(kind: string, rooms: ReadonlyMap<string, number>): boolean {
    const isFull = performance.now() < (this.#full.get(kind) ?? 0)
    return !isFull && (rooms.get(this.#queueOf({ kind })) ?? 0) > 0
  }

  readonly #queueOf = ({ kind }: Pick<Head, 'kind'>) =>
    (this.#options.handlers.get(kind) as JobHandler).job.queue

  async #read(): Promise<void> {
    const { store, handlers } = this.#options
    const startedAt = performance.now()
    const query = headsQuery([...handlers.keys()], this.#perKind)
    const { rows } = await query.execute(store.open(false))
    this.#readAt = startedAt
    this.#readMs = performance.now() - startedAt
    this.#heads = rows.sort((a, b) => a.priority - b.priority || (a.id < b.id ? -1 : 1))
    const counts = Map.groupBy(rows, ({ kind }) => kind)
    const cut = [...counts].filter(([, heads]) => heads.length === this.#perKind)
    this.#cutKinds = new Set(cut.map(([kind]) => kind))
  }

  #claimFree(heads: readonly Head[]): Promise<Claim[]> {
    return this.#options.store.transaction(false, async (trx) => {
      const isShort = this.#readMs < SHORT_READ_MS && performance.now() >= this.#walkAgainAt
      const rows = isShort ? await this.#walk(trx, heads) : await lockNamed(trx, toIds(heads))
      return this.#begin(trx, rows)
    })
  }

  async #walk(trx: Trx, heads: readonly Head[]): Promise<Claim[]> {
    const startedAt = performance.now()
    const rows: Claim[] = []
    for (const [kind, some] of Map.groupBy(heads, (head) => head.kind))
      rows.push(...(await claimQuery(kind, some.length).execute(trx)).rows)
    const endedAt = performance.now()
    this.#walkAgainAt = endedAt - startedAt > LONG_WALK_MS ? endedAt + RETRY_WALK_MS : endedAt
    return rows
  }

  async #claimLimited(kind: string, limit: number): Promise<Omit<Claimed, 'more'>> {
    const { store, handlers, pollMs } = this.#options
    const { job } = handlers.get(kind) as JobHandler
    await this.#makeLockable(kind)
    const { rows, fullMs } = await store.transaction(false, (trx) =>
      claimWithinLimits(trx, job, limit, (rows) => this.#begin(trx, rows)),
    )
    this.#full.delete(kind)
    if (fullMs === undefined) return { claims: rows }
    const retryMs = Math.min(fullMs, pollMs)
    this.#full.set(kind, performance.now() + retryMs)
    return { claims: rows, retryMs }
  }

  async #makeLockable(kind: string): Promise<void> {
    if (this.#lockable.has(kind)) return
    const insert = typed(this.#options.store.open(false)).insertInto('job_limit').ignore()
    await insert.values({ kind }).execute()
    this.#lockable.add(kind)
  }

  async #begin(trx: Trx, rows: readonly Claim[]): Promise<Claim[]> {
    if (rows.length === 0) return []
    const { worker, leaseMs } = this.#options
    const ids = idList(toIds(rows))
    const kinds = this.#failureKinds
    const onFailed = kinds.length > 0 ? sql`kind in (${sql.join(kinds)})` : sql`false`
    await sql`
      update job set state = 'running', attempt = attempt + 1, fence = fence + 1,
        worker = ${worker}, progress = 0, note = null, started_at = now(3),
        due_at = ${later(leaseMs)}, on_failed = ${onFailed}
      where id in (${ids})
    `.execute(trx)
    await sql`
      insert into job_attempt (job_id, fence, attempt, worker)
      select id, fence, attempt, worker from job where id in (${ids})
    `.execute(trx)
    return rows.map(({ waitMs: microseconds, ...row }) => {
      const waitMs = Math.max(0, Number(microseconds) / 1_000)
      return { ...row, waitMs, fence: row.fence + 1, attempt: row.attempt + 1 }
    })
  }
}

export const headsQuery = (kinds: readonly string[], limit: number) => {
  const lists = kinds.map(
    (kind) => sql`(
      select id, kind, priority from job force index (job_queue)
      where state = 'queued' and kind = ${kind} order by ${ORDER} limit ${limit}
    )`,
  )
  return sql<Head>`${sql.join(lists, sql` union all `)}`
}
