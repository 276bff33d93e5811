import { performance } from 'node:perf_hooks'
import { type RawBuilder, sql, type UpdateObject } from 'kysely'
import { CHANGE_COLUMNS, FINISHED, isFinished, type JobChange, STATES } from './job.ts'
import {
  type AttemptOutcome,
  type Db,
  type JobState,
  type JobTables,
  type Trx,
  typed,
} from './tables.ts'

const CHANGES = sql.join(CHANGE_COLUMNS.map((name) => sql.ref(name)))

/** How many rows one turn of maintenance takes. */
export const MAINTENANCE_BATCH = 100
const PRUNE_BATCH = 500
/** How far ahead the queue is searched for kinds without a handler here. */
const KINDS_LOOKAHEAD = 1_000
/** For how many sets of kinds a `Queue` is kept. */
const MAX_QUEUES = 16
/** The longest random wait after the first loss of a process; doubled with each, up to the second. */
const LOSS_BACKOFF_MS = 1_000
const MAX_LOSS_BACKOFF_MS = 60_000
/** Up to how many jobs of a state are counted; reading so many index entries takes about 10 ms. */
const MAX_COUNTED = 100_000

/** A job that a worker holds, for as long as the row has this fencing token. */
export interface Claim {
  id: string
  kind: string
  fence: number
  attempt: number
  maxAttempts: number
  requestId: string | null
  /** The public text of the last failure. */
  error: string | null
  input: string
}

/** How an attempt ended, and what becomes of the job. */
export type AttemptResult =
  | { state: 'succeeded'; result: string }
  /** Discarded: no further attempt. */
  | { state: 'failed'; error: string; detail: string }
  /** Retried after the delay. */
  | { state: 'scheduled'; error: string; detail: string; delayMs: number }
  /** Released by a process that stops. */
  | { state: 'queued' }

export interface FinishedAttempt {
  claim: Claim
  result: AttemptResult
}

export interface ClaimOptions {
  worker: string
  /** How many jobs of each kind may be claimed. */
  rooms: ReadonlyMap<string, number>
  limit: number
  leaseMs: number
  /** Only these jobs; absent, the first of the queue. */
  ids?: readonly string[] | undefined
}

export interface StoreOptions {
  /** @param reserved for what must not wait behind requests: leases, progress, results. */
  open(reserved: boolean): Db
  transaction<T>(db: Db, story: (trx: Trx) => Promise<T>, isolation: 'read committed'): Promise<T>
  /** How long finished jobs are kept. */
  keepMs: number
}

/**
 * Every change to a job's row after it was enqueued. Each runs in a transaction under READ
 * COMMITTED, so that only the rows meant are locked: a job before its attempts, jobs by id. All
 * times come from the database's clock, the only one that all processes share.
 */
export class JobStore {
  readonly #options: StoreOptions
  readonly #queues = new Map<string, Queue>()

  constructor(options: StoreOptions) {
    this.#options = options
  }

  /**
   * Claims queued jobs for a worker: each gets a lease, the next fencing token and one more attempt.
   * `more` says whether others may be queued.
   */
  claim(options: ClaimOptions): Promise<{ claims: Claim[]; more: boolean }> {
    const { rooms, limit, ids } = options
    const queue = this.#findQueue([...rooms.keys()])
    return this.#transaction(false, async (trx) => {
      const { rows, more } = ids
        ? { rows: await lockNamed(trx, ids), more: false }
        : await queue.lock(trx, limit)
      return { claims: await begin(trx, fitting(rows, rooms), options), more }
    })
  }

  /** The kinds among the first of the queue that are not in `kinds`. */
  async findOtherKinds(kinds: ReadonlySet<string>): Promise<string[]> {
    const { rows } = await sql<{ kind: string }>`
      select distinct kind from (
        select kind from job force index (job_queue) where state = 'queued'
        order by priority, id limit ${sql.lit(KINDS_LOOKAHEAD)}
      ) as first
    `.execute(this.#options.open(false))
    return rows.map(({ kind }) => kind).filter((kind) => !kinds.has(kind))
  }

  /** Writes results of attempts; returns the changes, without those whose claim no longer held. */
  finish(attempts: readonly FinishedAttempt[]): Promise<JobChange[]> {
    return this.#transaction(true, async (trx) => {
      const held = await lockHeld(
        trx,
        attempts.map(({ claim }) => claim),
      )
      const mine = attempts.filter(({ claim }) => held.has(claim))
      const bare = mine.filter(
        ({ result }) => result.state === 'succeeded' && result.result === 'null',
      )
      if (bare.length > 0) await this.#succeed(trx, toClaimIds(bare), null)
      for (const attempt of mine) if (!bare.includes(attempt)) await this.#finishOne(trx, attempt)
      return readChanges(trx, toClaimIds(mine))
    })
  }

  /** Extends the leases that the worker still holds to `leaseMs` from now. */
  renew(claims: readonly Claim[], leaseMs: number): Promise<void> {
    return this.#transaction(true, async (trx) => {
      const held = toIds([...(await lockHeld(trx, claims))])
      if (held.length > 0)
        await sql`update job set due_at = ${later(leaseMs)} where id in (${idList(held)})`.execute(
          trx,
        )
    })
  }

  /** The claims that no longer hold, each with the job as it is, if it still exists. */
  async findLost(claims: readonly Claim[]): Promise<Map<Claim, JobChange | undefined>> {
    const { rows } = await sql<JobChange & { fence: number }>`
      select ${CHANGES}, fence from job where id in (${idList(toIds(claims))})
    `.execute(this.#options.open(true))
    const byId = new Map(rows.map(({ fence, ...change }) => [change.id, { fence, change }]))
    const found = claims.map((claim) => [claim, byId.get(claim.id)] as const)
    return new Map(
      found
        .filter(([{ fence }, job]) => job?.fence !== fence || job.change.state !== 'running')
        .map(([claim, job]) => [claim, job?.change]),
    )
  }

  /** Returns false when the worker no longer holds the job. */
  async writeProgress({ id, fence }: Claim, progress: number, note: string | null) {
    const { numUpdatedRows } = await typed(this.#options.open(true))
      .updateTable('job')
      .set({ progress, note })
      .where('id', '=', id)
      .where('fence', '=', fence)
      .where('state', '=', 'running')
      .executeTakeFirst()
    return numUpdatedRows > 0n
  }

  /** Queues scheduled jobs that are due. */
  promote(): Promise<JobChange[]> {
    return this.#moveDue('scheduled', (trx, rows) =>
      sql`update job set state = 'queued', due_at = null where id in (${idList(toIds(rows))})`.execute(
        trx,
      ),
    )
  }

  /** Schedules jobs whose lease expired, or fails those without attempts left. */
  rescue(): Promise<JobChange[]> {
    return this.#moveDue('running', async (trx, rows) => {
      const detail = 'Its process ended, or could not renew the lease in time'
      await closeAttempts(trx, toIds(rows), 'lost', detail)
      for (const { id, attempt, maxAttempts } of rows)
        if (attempt >= maxAttempts)
          await this.#fail(trx, id, 'Every process that began it ended before it was done')
        else await rescheduleLost(trx, id, attempt)
    })
  }

  /** Ends an unfinished job, wherever it runs; its worker notices that its claim no longer holds. */
  async cancel(trx: Trx, id: string) {
    const job = await lockJob(trx, id)
    if (!job || isFinished(job.state)) return job && { job, changed: false }
    await update(trx, id, { state: 'cancelled', ...this.#ending() })
    await closeAttempts(trx, [id], 'cancelled')
    return { job: (await lockJob(trx, id)) as JobDetail, changed: true }
  }

  /** Queues a failed or cancelled job again, with all of its attempts. */
  async retry(trx: Trx, id: string) {
    const job = await lockJob(trx, id)
    if (!job || (job.state !== 'failed' && job.state !== 'cancelled'))
      return job && { job, changed: false }
    const fresh = {
      attempt: 0,
      progress: 0,
      note: null,
      error: null,
      due_at: null,
      finished_at: null,
    }
    await update(trx, id, { state: 'queued', ...fresh })
    return { job: (await lockJob(trx, id)) as JobDetail, changed: true }
  }

  /** Deletes one batch of finished jobs that were kept for long enough; returns their number. */
  async prune(): Promise<number> {
    let pruned = 0n
    for (const state of FINISHED) {
      const { numAffectedRows = 0n } = await this.#transaction(false, (trx) =>
        pruneQuery(state).execute(trx),
      )
      pruned += numAffectedRows
    }
    return Number(pruned)
  }

  async #moveDue(
    state: 'scheduled' | 'running',
    move: (trx: Trx, rows: readonly Due[]) => Promise<unknown>,
  ): Promise<JobChange[]> {
    const ids = await findDue(this.#options.open(true), state)
    if (ids.length === 0) return []
    return this.#transaction(true, async (trx) => {
      const rows = await lockDue(trx, state, ids)
      if (rows.length > 0) await move(trx, rows)
      return readChanges(trx, toIds(rows))
    })
  }

  async #finishOne(trx: Trx, { claim: { id }, result }: FinishedAttempt): Promise<void> {
    if (result.state === 'succeeded') return this.#succeed(trx, [id], result.result)
    if (result.state === 'queued') return release(trx, id)
    await closeAttempts(trx, [id], 'failed', result.detail)
    if (result.state === 'failed') return this.#fail(trx, id, result.error)
    const { state, error, delayMs } = result
    await update(trx, id, { state, error, due_at: later(delayMs), worker: null })
  }

  async #succeed(trx: Trx, ids: string[], result: string | null): Promise<void> {
    const { due_at, finished_at } = this.#ending()
    await sql`
      update job set state = 'succeeded', result = ${result}, progress = 1, error = null, worker = null,
        dedupe_key = null, due_at = ${due_at}, finished_at = ${finished_at} where id in (${idList(ids)})
    `.execute(trx)
    await closeAttempts(trx, ids, 'succeeded')
  }

  async #fail(trx: Trx, id: string, error: string): Promise<void> {
    await update(trx, id, { state: 'failed', error, ...this.#ending() })
  }

  #ending() {
    const { keepMs } = this.#options
    return { worker: null, dedupe_key: null, due_at: later(keepMs), finished_at: sql<Date>`now(3)` }
  }

  /** The kinds that are claimed change with the room for each. */
  #findQueue(kinds: readonly string[]): Queue {
    const key = kinds.join(' ')
    const queue = this.#queues.get(key) ?? new Queue(kinds)
    if (this.#queues.size >= MAX_QUEUES && !this.#queues.has(key)) this.#queues.clear()
    this.#queues.set(key, queue)
    return queue
  }

  #transaction<T>(reserved: boolean, story: (trx: Trx) => Promise<T>): Promise<T> {
    const { open, transaction } = this.#options
    return transaction(open(reserved), story, 'read committed')
  }
}

/** A locking walk that takes longer than this is too long to be made for each claim. */
const LONG_WALK_MS = 10
/** After how long a locking walk is tried again, if plain reads take less than the second. */
const RETRY_WALK_MS = 2_000
const SHORT_READ_MS = 5
/** How many jobs one plain read finds. */
const READ_AHEAD = 500
/** How long they are used: for this, or for this multiple of the time that the read took. */
const MIN_FRESH_MS = 100
const FRESH_PER_READ = 10

/**
 * Finds the head of the queue for some kinds. Usually a claim walks along the index and locks the
 * first jobs that no other claim has locked. That becomes slow where the index has many entries to
 * pass: jobs of other kinds, and claimed jobs for as long as a transaction older than their claim
 * is open, such as a backup's. Then the first jobs are read ahead without locks, some twenty times
 * as fast, and locked by id. A job that comes before those waits for the next read.
 */
class Queue {
  readonly #kinds: readonly string[]
  #isLong = false
  #walkAgainAt = 0
  #ids: string[] = []
  #freshUntil = 0
  #readMs = 0

  constructor(kinds: readonly string[]) {
    this.#kinds = kinds
  }

  /** Locks up to `limit` jobs of the head; `more` says whether there may be others. */
  async lock(trx: Trx, limit: number): Promise<{ rows: Claim[]; more: boolean }> {
    const mayWalk =
      !this.#isLong || (performance.now() >= this.#walkAgainAt && this.#readMs < SHORT_READ_MS)
    return mayWalk ? this.#walk(trx, limit) : this.#lockRead(trx, limit)
  }

  async #walk(trx: Trx, limit: number) {
    const startedAt = performance.now()
    const { rows } = await claimQuery(limit, this.#kinds).execute(trx)
    const endedAt = performance.now()
    this.#isLong = endedAt - startedAt > LONG_WALK_MS
    this.#walkAgainAt = endedAt + RETRY_WALK_MS
    return { rows, more: rows.length === limit }
  }

  /** Other processes may have claimed some of the jobs that were read, or all. */
  async #lockRead(trx: Trx, limit: number) {
    if (this.#ids.length === 0 || performance.now() >= this.#freshUntil) await this.#read(trx)
    let rows: Claim[] = []
    while (rows.length === 0 && this.#ids.length > 0)
      rows = await lockNamed(trx, this.#ids.splice(0, limit))
    return { rows, more: this.#ids.length > 0 }
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

const CLAIM_COLUMNS = sql`id, kind, fence, attempt, max_attempts as maxAttempts, request_id as requestId, error, input`

/**
 * The first of the queue that no other claim has locked. `force index`, because the planner of a
 * small or freshly filled table may prefer another index, and sort.
 */
export const claimQuery = (limit: number, kinds?: readonly string[]) => sql<Claim>`
  select ${CLAIM_COLUMNS} from job force index (job_queue)
  where state = 'queued' ${ofKinds(kinds)} order by priority, id limit ${limit} for update skip locked
`

const ofKinds = (kinds?: readonly string[]) => (kinds ? sql`and kind in (${idList(kinds)})` : sql``)

async function lockNamed(trx: Trx, ids: readonly string[]): Promise<Claim[]> {
  const { rows } = await sql<Claim>`
    select ${CLAIM_COLUMNS} from job force index (primary)
    where id in (${idList(ids)}) and state = 'queued' order by id for update skip locked
  `.execute(trx)
  return rows
}

/** Those of the rows, in their order, that there is room for. */
function fitting(rows: readonly Claim[], rooms: ReadonlyMap<string, number>): Claim[] {
  const left = new Map(rooms)
  return rows.filter(({ kind }) => {
    const room = left.get(kind) ?? 0
    left.set(kind, room - 1)
    return room > 0
  })
}

async function begin(
  trx: Trx,
  rows: readonly Claim[],
  { worker, leaseMs }: ClaimOptions,
): Promise<Claim[]> {
  if (rows.length === 0) return []
  const ids = idList(toIds(rows))
  await sql`
    update job set state = 'running', attempt = attempt + 1, fence = fence + 1, worker = ${worker},
      progress = 0, note = null, started_at = now(3), due_at = ${later(leaseMs)} where id in (${ids})
  `.execute(trx)
  await sql`
    insert into job_attempt (job_id, fence, attempt, worker)
    select id, fence, attempt, worker from job where id in (${ids})
  `.execute(trx)
  return rows.map((row) => ({ ...row, fence: row.fence + 1, attempt: row.attempt + 1 }))
}

/** Locks the rows of the claims, and returns the claims that still hold. */
async function lockHeld(trx: Trx, claims: readonly Claim[]): Promise<Set<Claim>> {
  const { rows } = await sql<{ id: string; fence: number; state: string }>`
    select id, fence, state from job force index (primary)
    where id in (${idList(toIds(claims))}) order by id for update
  `.execute(trx)
  const running = rows.filter(({ state }) => state === 'running')
  const fences = new Map(running.map(({ id, fence }) => [id, fence]))
  return new Set(claims.filter(({ id, fence }) => fences.get(id) === fence))
}

/**
 * The longest overdue jobs. Without locks: while an old transaction keeps index entries of what was
 * due since, a walk that locks each of them takes some twenty times as long.
 */
async function findDue(db: Db, state: 'scheduled' | 'running'): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`
    select id from job force index (job_due) where state = ${state} and due_at <= now(3)
    order by state, due_at limit ${sql.lit(MAINTENANCE_BATCH)}
  `.execute(db)
  return toIds(rows)
}

type Due = Pick<Claim, 'id' | 'attempt' | 'maxAttempts'>

/** Those that are still due and that no other process has locked. */
async function lockDue(trx: Trx, state: 'scheduled' | 'running', ids: readonly string[]) {
  const { rows } = await sql<Due>`
    select id, attempt, max_attempts as maxAttempts from job force index (primary)
    where id in (${idList(ids)}) and state = ${state} and due_at <= now(3) order by id
    for update skip locked
  `.execute(trx)
  return rows
}

/**
 * Ordered by both columns of the index, because MariaDB would sort by `due_at` alone: the collation
 * of the connection keeps it from taking `state` for a constant.
 */
export const pruneQuery = (state: JobState) => sql`
  delete from job where state = ${state} and due_at < now(3)
  order by state, due_at limit ${sql.lit(PRUNE_BATCH)}
`

/** Queues a job again without counting the attempt. */
async function release(trx: Trx, id: string): Promise<void> {
  await sql`
    update job set state = 'queued', attempt = attempt - 1, worker = null, due_at = null where id = ${id}
  `.execute(trx)
  await closeAttempts(trx, [id], 'released')
}

/**
 * One of the lost jobs may be what ended the process: each waits for a random time, so that it does
 * not run beside the same ones again.
 */
function rescheduleLost(trx: Trx, id: string, attempt: number): Promise<unknown> {
  const maxMs = Math.min(LOSS_BACKOFF_MS * 2 ** (attempt - 1), MAX_LOSS_BACKOFF_MS)
  const due_at = later(Math.random() * maxMs)
  return update(trx, id, { state: 'scheduled', due_at, worker: null })
}

/** Closes the open attempt of each of these jobs. */
const closeAttempts = (
  trx: Trx,
  ids: readonly string[],
  outcome: AttemptOutcome,
  error: string | null = null,
) =>
  sql`update job_attempt set outcome = ${outcome}, error = ${error}, finished_at = now(3)
      where job_id in (${idList(ids)}) and outcome is null`.execute(trx)

const update = (trx: Trx, id: string, columns: UpdateObject<JobTables, 'job'>) =>
  typed(trx).updateTable('job').set(columns).where('id', '=', id).execute()

const JOB_COLUMNS = [
  ...CHANGE_COLUMNS,
  'priority',
  'max_attempts as maxAttempts',
  'request_id as requestId',
  'created_at as createdAt',
  sql<Date | null>`if(state = 'scheduled', due_at, null)`.as('runAt'),
  'started_at as startedAt',
  'finished_at as finishedAt',
] as const

/** A job without its input and result, which may be large. */
export type JobRow = Awaited<ReturnType<typeof listJobs>>[number]

/** A job with its input and result. */
export type JobDetail = JobRow & { input: unknown; result: unknown }

/** The jobs with these ids, as they are now. */
export async function readChanges(db: Db, ids: readonly string[]): Promise<JobChange[]> {
  if (ids.length === 0) return []
  const { rows } = await sql<JobChange>`
    select ${CHANGES} from job where id in (${idList(ids)})
  `.execute(db)
  return rows
}

export const findJob = async (db: Db, id: string) =>
  toDetail(await jobQuery(db, id).executeTakeFirst())

const lockJob = async (trx: Trx, id: string) =>
  toDetail(await jobQuery(trx, id).forUpdate().executeTakeFirst())

const jobQuery = (db: Db, id: string) =>
  typed(db).selectFrom('job').select(JOB_COLUMNS).select(['input', 'result']).where('id', '=', id)

const toDetail = (row: (JobRow & { input: string; result: string | null }) | undefined) =>
  row && { ...row, input: JSON.parse(row.input), result: JSON.parse(row.result ?? 'null') }

export interface ListOptions {
  limit: number
  /** An id: only older jobs. */
  before?: string | undefined
  state?: JobState | undefined
  kind?: string | undefined
}

/** At most `limit` jobs, newest first. */
export function listJobs(db: Db, { limit, before, state, kind }: ListOptions) {
  let query = typed(db).selectFrom('job').select(JOB_COLUMNS).orderBy('id', 'desc').limit(limit)
  if (before !== undefined) query = query.where('id', '<', before)
  if (state !== undefined) query = query.where('state', '=', state)
  if (kind !== undefined) query = query.where('kind', '=', kind)
  return query.execute()
}

/** Every attempt at a job, in order. */
export const listAttempts = (db: Db, id: string) =>
  typed(db)
    .selectFrom('job_attempt')
    .select(['attempt', 'worker', 'outcome', 'error'])
    .select(['started_at as startedAt', 'finished_at as finishedAt'])
    .where('job_id', '=', id)
    .orderBy('fence')
    .execute()

/** How many jobs there are in each state, up to 100 000. */
export async function countJobs(db: Db): Promise<Record<JobState, number>> {
  const counts = STATES.map(
    (state) => sql`(
      select count(*) from (
        select 1 as one from job where state = ${sql.lit(state)} limit ${sql.lit(MAX_COUNTED)}
      ) as jobs
    ) as ${sql.ref(state)}`,
  )
  const { rows } = await sql<Record<JobState, string>>`select ${sql.join(counts)}`.execute(db)
  const entries = STATES.map((state) => [state, Number(rows[0]?.[state])])
  return Object.fromEntries(entries) as Record<JobState, number>
}

const later = (ms: number) => sql<Date>`now(3) + interval (${ms} * 1000) microsecond`

/**
 * A list for `in`, filled up to the next power of two with values that it already has: the server
 * keeps every prepared statement, and lists of few lengths make few statements.
 */
function idList(ids: readonly string[]): RawBuilder<string> {
  const length = 2 ** Math.ceil(Math.log2(ids.length))
  return sql.join(Array.from({ length }, (_, index) => ids[index] ?? ids.at(-1)))
}

const toIds = (rows: readonly { id: string }[]) => rows.map(({ id }) => id)

const toClaimIds = (attempts: readonly FinishedAttempt[]) => attempts.map(({ claim }) => claim.id)
