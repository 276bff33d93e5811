import { performance } from 'node:perf_hooks'
import { type RawBuilder, sql, type UpdateObject } from 'kysely'
import { FINISHED, type JobChange, RETRYABLE, UNFINISHED } from './job.ts'
import { CHANGE } from './query.ts'
import {
  type AttemptOutcome,
  type Db,
  type JobState,
  type JobTables,
  type Trx,
  typed,
} from './tables.ts'

export const MAINTENANCE_BATCH = 100
const PRUNE_BATCH = 500
const KINDS_LOOKAHEAD = 1_000
const MAX_QUEUES = 16
const LOSS_BACKOFF_MS = 1_000
const MAX_LOSS_BACKOFF_MS = 60_000

/** Valid while the row is running and has this fencing token. */
export interface Claim {
  id: string
  kind: string
  fence: number
  attempt: number
  maxAttempts: number
  requestId: string | null
  subject: string | null
  /** Of who enqueued it. */
  trace: string | null
  error: string | null
  input: string
}

/** Completed, discarded, to be retried, or released by a stopping process. */
export type AttemptResult =
  | { state: 'succeeded'; result: string }
  | { state: 'failed'; error: string; detail: string }
  | { state: 'scheduled'; error: string; detail: string; delayMs: number }
  | { state: 'queued' }

type Due = Pick<Claim, 'id' | 'attempt' | 'maxAttempts'>

export interface FinishedAttempt {
  claim: Claim
  result: AttemptResult
}

export interface ClaimOptions {
  worker: string
  /** By kind. */
  rooms: ReadonlyMap<string, number>
  limit: number
  leaseMs: number
  /** The head of the queue if absent. */
  ids?: readonly string[] | undefined
}

export interface StoreOptions {
  /** @param reserved for what must not wait behind requests: leases, progress, results. */
  open(reserved: boolean): Db
  /** Runs a transaction, again after a deadlock. */
  transaction<T>(db: Db, story: (trx: Trx) => Promise<T>, isolation: 'read committed'): Promise<T>
  keepMs: number
}

/**
 * Changes enqueued jobs. READ COMMITTED locks only the rows meant: a job before its attempts, jobs
 * by id. All times are the database's.
 */
export class JobStore {
  readonly #options: StoreOptions
  readonly #queues = new Map<string, Queue>()

  constructor(options: StoreOptions) {
    this.#options = options
  }

  /** Gives queued jobs a lease, the next fencing token and one more attempt. */
  claim(options: ClaimOptions): Promise<{ claims: Claim[]; more: boolean }> {
    const { rooms, limit, ids } = options
    const queue = this.#findQueue([...rooms.keys()])
    return this.transaction(false, async (trx) => {
      const { rows, more } = ids
        ? { rows: await lockNamed(trx, ids), more: false }
        : await queue.lock(trx, limit)
      return { claims: await begin(trx, fitting(rows, rooms), options), more }
    })
  }

  /** Other kinds near the head of the queue. */
  async findOtherKinds(kinds: ReadonlySet<string>): Promise<string[]> {
    const { rows } = await sql<{ kind: string }>`
      select distinct kind from (
        select kind from job force index (job_queue) where state = 'queued'
        order by priority, id limit ${sql.lit(KINDS_LOOKAHEAD)}
      ) as first
    `.execute(this.open(false))
    return rows.map(({ kind }) => kind).filter((kind) => !kinds.has(kind))
  }

  /** Writes the results of valid claims; returns the changes. */
  finish(attempts: readonly FinishedAttempt[]): Promise<JobChange[]> {
    return this.transaction(true, async (trx) => {
      const valid = await lockClaimed(trx, toClaims(attempts))
      const mine = attempts.filter(({ claim }) => valid.has(claim))
      const groups = Map.groupBy(mine, ({ result }) =>
        result.state === 'succeeded' ? result.result : result,
      )
      for (const group of groups.values()) {
        const [{ result }] = group as [FinishedAttempt]
        await this.#finish(trx, toIds(toClaims(group)), result)
      }
      return readChanges(trx, toIds(toClaims(mine)))
    })
  }

  renew(claims: readonly Claim[], leaseMs: number): Promise<void> {
    return this.transaction(true, async (trx) => {
      const valid = await lockClaimed(trx, claims)
      const due_at = later(leaseMs)
      if (valid.size > 0) await update(trx, toIds([...valid]), { due_at }).execute()
    })
  }

  /** Invalid claims, each with its job as it is, if it exists. */
  async findLost(claims: readonly Claim[]): Promise<Map<Claim, JobChange | undefined>> {
    const { rows } = await sql<JobChange & { fence: number }>`
      select ${CHANGE}, fence from job where id in (${idList(toIds(claims))})
    `.execute(this.open(true))
    const jobs = new Map(rows.map((job) => [job.id, job]))
    const lost = claims.filter(({ id, fence }) => {
      const job = jobs.get(id)
      return job?.fence !== fence || job.state !== 'running'
    })
    return new Map(lost.map((claim) => [claim, jobs.get(claim.id)]))
  }

  /** Resolves with whether the claim was valid. */
  async writeProgress({ id, fence }: Claim, progress: number, note: string | null) {
    const { numAffectedRows = 0n } = await sql`
      update job set progress = ${progress}, note = ${note}
      where id = ${id} and fence = ${fence} and state = 'running'
    `.execute(this.open(true))
    return numAffectedRows > 0n
  }

  promote(): Promise<JobChange[]> {
    return this.#moveDue('scheduled', (trx, rows) =>
      update(trx, toIds(rows), { state: 'queued', due_at: null }).execute(),
    )
  }

  /**
   * Reschedules jobs whose leases expired. One may have crashed the process: random delays keep
   * them from running together again.
   */
  rescue(): Promise<JobChange[]> {
    return this.#moveDue('running', async (trx, rows) => {
      const detail = 'Its process ended, or could not renew the lease in time'
      await closeAttempts(trx, toIds(rows), 'lost', detail)
      const error = 'Every process that began it ended before it was done'
      for (const { id, attempt, maxAttempts } of rows) {
        const maxMs = Math.min(LOSS_BACKOFF_MS * 2 ** (attempt - 1), MAX_LOSS_BACKOFF_MS)
        const due_at = later(Math.random() * maxMs)
        if (attempt < maxAttempts)
          await update(trx, [id], { state: 'scheduled', due_at, worker: null }).execute()
        else await update(trx, [id], { state: 'failed', error, ...this.#ending }).execute()
      }
    })
  }

  /** Workers notice that their claims are invalid. */
  async cancel(trx: Trx, ids: readonly string[]): Promise<JobChange[]> {
    const cancelled: JobUpdate = { state: 'cancelled', ...this.#ending }
    const changes = await changeFrom(trx, ids, UNFINISHED, cancelled)
    if (changes.length > 0) await closeAttempts(trx, toIds(changes), 'cancelled')
    return changes
  }

  retry(trx: Trx, ids: readonly string[]): Promise<JobChange[]> {
    const fresh = { attempt: 0, progress: 0, note: null, error: null }
    const queued: JobUpdate = { state: 'queued', due_at: null, finished_at: null, ...fresh }
    return changeFrom(trx, ids, RETRYABLE, queued)
  }

  async prune(): Promise<number> {
    let pruned = 0n
    for (const state of FINISHED) {
      const prune = (trx: Trx) => pruneQuery(state).execute(trx)
      pruned += (await this.transaction(false, prune)).numAffectedRows ?? 0n
    }
    return Number(pruned)
  }

  async #moveDue(
    state: 'scheduled' | 'running',
    move: (trx: Trx, rows: readonly Due[]) => Promise<unknown>,
  ): Promise<JobChange[]> {
    // Found without locks, as `Queue` reads ahead.
    const { rows: found } = await sql<{ id: string }>`
      select id from job force index (job_due) where state = ${state} and due_at <= now(3)
      order by state, due_at limit ${sql.lit(MAINTENANCE_BATCH)}
    `.execute(this.open(true))
    if (found.length === 0) return []
    return this.transaction(true, async (trx) => {
      const { rows } = await sql<Due>`
        select id, attempt, max_attempts as maxAttempts from job force index (primary)
        where id in (${idList(toIds(found))}) and state = ${state} and due_at <= now(3)
        order by id for update skip locked
      `.execute(trx)
      if (rows.length > 0) await move(trx, rows)
      return readChanges(trx, toIds(rows))
    })
  }

  async #finish(trx: Trx, ids: readonly string[], attempt: AttemptResult): Promise<void> {
    const { state } = attempt
    if (state === 'succeeded') {
      const result = attempt.result === 'null' ? null : attempt.result
      const columns = { state, result, progress: 1, error: null, ...this.#ending }
      await update(trx, ids, columns).execute()
      return closeAttempts(trx, ids, 'succeeded')
    }
    if (state === 'queued') {
      const before = sql<number>`attempt - 1`
      await update(trx, ids, { state, attempt: before, worker: null, due_at: null }).execute()
      return closeAttempts(trx, ids, 'released')
    }
    const { error, detail } = attempt
    const ending =
      state === 'failed' ? this.#ending : { due_at: later(attempt.delayMs), worker: null }
    await update(trx, ids, { state, error, ...ending }).execute()
    return closeAttempts(trx, ids, 'failed', detail)
  }

  get #ending() {
    const due_at = later(this.#options.keepMs)
    return { worker: null, dedupe_key: null, due_at, finished_at: sql<Date>`now(3)` }
  }

  #findQueue(kinds: readonly string[]): Queue {
    if (this.#queues.size >= MAX_QUEUES) this.#queues.clear()
    return this.#queues.getOrInsertComputed(kinds.join(' '), () => new Queue(kinds))
  }

  open(reserved: boolean): Db {
    return this.#options.open(reserved)
  }

  transaction<T>(reserved: boolean, story: (trx: Trx) => Promise<T>): Promise<T> {
    return this.#options.transaction(this.open(reserved), story, 'read committed')
  }
}

const LONG_WALK_MS = 10
/** The pause before another walk, if reads take less than SHORT_READ_MS. */
const RETRY_WALK_MS = 2_000
const SHORT_READ_MS = 5
const READ_AHEAD = 500
/** How long ids read ahead are used, or this multiple of the reading time if longer. */
const MIN_FRESH_MS = 100
const FRESH_PER_READ = 10

/**
 * Finds the head of the queue. A claim usually walks the index and locks the first free jobs. If
 * many entries of other kinds or of old transactions are in the way, ids are read ahead without
 * locks, twenty times as fast.
 */
class Queue {
  readonly #kinds: readonly string[]
  #walkAgainAt = 0
  #ids: string[] = []
  #freshUntil = 0
  #readMs = 0

  constructor(kinds: readonly string[]) {
    this.#kinds = kinds
  }

  async lock(trx: Trx, limit: number): Promise<{ rows: Claim[]; more: boolean }> {
    const now = performance.now()
    if (now >= this.#walkAgainAt && this.#readMs < SHORT_READ_MS) return this.#walk(trx, limit)
    if (this.#ids.length === 0 || now >= this.#freshUntil) await this.#read(trx)
    let rows: Claim[] = []
    while (rows.length === 0 && this.#ids.length > 0)
      rows = await lockNamed(trx, this.#ids.splice(0, limit))
    return { rows, more: this.#ids.length > 0 }
  }

  async #walk(trx: Trx, limit: number) {
    const startedAt = performance.now()
    const { rows } = await claimQuery(limit, this.#kinds).execute(trx)
    const endedAt = performance.now()
    this.#walkAgainAt = endedAt - startedAt > LONG_WALK_MS ? endedAt + RETRY_WALK_MS : endedAt
    return { rows, more: rows.length === limit }
  }

  async #read(trx: Trx): Promise<void> {
    const startedAt = performance.now()
    const { rows } = await sql<{ id: string }>`
      select id from job force index (job_queue)
      where state = 'queued' ${ofKinds(this.#kinds)} order by priority, id limit ${READ_AHEAD}
    `.execute(trx)
    const endedAt = performance.now()
    this.#ids = toIds(rows)
    this.#readMs = endedAt - startedAt
    this.#freshUntil = endedAt + Math.max(MIN_FRESH_MS, FRESH_PER_READ * this.#readMs)
  }
}

const CLAIM = sql`
  id, kind, fence, attempt, max_attempts as maxAttempts, request_id as requestId, subject, trace,
  error, input
`

/** `force index`: with few rows, the planner may prefer another index and sort. */
export const claimQuery = (limit: number, kinds?: readonly string[]) => sql<Claim>`
  select ${CLAIM} from job force index (job_queue)
  where state = 'queued' ${ofKinds(kinds)}
  order by priority, id limit ${limit} for update skip locked
`

const ofKinds = (kinds?: readonly string[]) => (kinds ? sql`and kind in (${idList(kinds)})` : sql``)

async function lockNamed(trx: Trx, ids: readonly string[]): Promise<Claim[]> {
  const { rows } = await sql<Claim>`
    select ${CLAIM} from job force index (primary)
    where id in (${idList(ids)}) and state = 'queued' order by id for update skip locked
  `.execute(trx)
  return rows
}

function fitting(rows: readonly Claim[], rooms: ReadonlyMap<string, number>): Claim[] {
  const left = new Map(rooms)
  return rows.filter(({ kind }) => {
    const room = left.get(kind) ?? 0
    left.set(kind, room - 1)
    return room > 0
  })
}

async function begin(trx: Trx, rows: readonly Claim[], { worker, leaseMs }: ClaimOptions) {
  if (rows.length === 0) return []
  const ids = idList(toIds(rows))
  await sql`
    update job set state = 'running', attempt = attempt + 1, fence = fence + 1, worker = ${worker},
      progress = 0, note = null, started_at = now(3), due_at = ${later(leaseMs)}
    where id in (${ids})
  `.execute(trx)
  await sql`
    insert into job_attempt (job_id, fence, attempt, worker)
    select id, fence, attempt, worker from job where id in (${ids})
  `.execute(trx)
  return rows.map((row) => ({ ...row, fence: row.fence + 1, attempt: row.attempt + 1 }))
}

async function lockClaimed(trx: Trx, claims: readonly Claim[]): Promise<Set<Claim>> {
  const { rows } = await sql<{ id: string; fence: number }>`
    select id, fence from job force index (primary)
    where id in (${idList(toIds(claims))}) and state = 'running' order by id for update
  `.execute(trx)
  const fences = new Map(rows.map(({ id, fence }) => [id, fence]))
  return new Set(claims.filter(({ id, fence }) => fences.get(id) === fence))
}

async function changeFrom(
  trx: Trx,
  ids: readonly string[],
  states: readonly JobState[],
  columns: JobUpdate,
): Promise<JobChange[]> {
  const { rows } = await sql<{ id: string }>`
    select id from job force index (primary)
    where id in (${idList(ids)}) and state in (${sql.join(states)}) order by id for update
  `.execute(trx)
  if (rows.length === 0) return []
  await update(trx, toIds(rows), columns).execute()
  return readChanges(trx, toIds(rows))
}

/** Ordered by both columns of the index: MariaDB takes no enum for a constant, and would sort. */
export const pruneQuery = (state: JobState) => sql`
  delete from job where state = ${state} and due_at < now(3)
  order by state, due_at limit ${sql.lit(PRUNE_BATCH)}
`

async function closeAttempts(
  trx: Trx,
  ids: readonly string[],
  outcome: AttemptOutcome,
  error: string | null = null,
): Promise<void> {
  await sql`
    update job_attempt set outcome = ${outcome}, error = ${error}, finished_at = now(3)
    where job_id in (${idList(ids)}) and outcome is null
  `.execute(trx)
}

type JobUpdate = UpdateObject<JobTables, 'job'>

const update = (trx: Trx, ids: readonly string[], columns: JobUpdate) =>
  typed(trx)
    .updateTable('job')
    .set(columns)
    .where(sql<boolean>`id in (${idList(ids)})`)

export async function readChanges(db: Db, ids: readonly string[]): Promise<JobChange[]> {
  if (ids.length === 0) return []
  const list = idList(ids)
  return (await sql<JobChange>`select ${CHANGE} from job where id in (${list})`.execute(db)).rows
}

const later = (ms: number) => sql<Date>`now(3) + interval (${ms} * 1000) microsecond`

/** Padded to a power of two, because the server keeps every statement that it prepared. */
function idList(ids: readonly string[]): RawBuilder<string> {
  const length = 2 ** Math.ceil(Math.log2(ids.length))
  return sql.join(Array.from({ length }, (_, index) => ids[index] ?? ids.at(-1)))
}

const toIds = (rows: readonly { id: string }[]) => rows.map(({ id }) => id)

export const toClaims = (attempts: readonly { claim: Claim }[]) =>
  attempts.map(({ claim }) => claim)
