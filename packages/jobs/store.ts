import { randomUUIDv7 } from 'node:crypto'
import { type RawBuilder, sql, type UpdateObject } from 'kysely'
import {
  FAILURE_ATTEMPTS,
  FINISHED,
  type JobChange,
  RETRYABLE,
  toFailureName,
  UNFINISHED,
} from './job.ts'
import { CHANGE, listKinds, QUEUED_AT } from './query.ts'
import {
  type AttemptOutcome,
  type Db,
  type JobState,
  type JobTables,
  type Trx,
  typed,
} from './tables.ts'

export const MAINTENANCE_BATCH = 100
export const CLEANUP_BATCH = 500
const ORPHAN_AFTER_DAYS = 1
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
  trace: string | null
  error: string | null
  limitKey: string
  input: string
  /** Since it was queued. */
  waitMs: number
}

/** Completed, discarded, to be retried, or released. */
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

export interface StoreOptions {
  /** @param reserved for what must not wait behind requests: leases, progress, results. */
  open(reserved: boolean): Db
  transaction<T>(db: Db, story: (trx: Trx) => Promise<T>, isolation: 'read committed'): Promise<T>
  keepMs: number
}

/**
 * Changes enqueued jobs, by the database's clock. READ COMMITTED locks only the rows meant: jobs by
 * id, each before its attempts.
 */
export class JobStore {
  readonly #options: StoreOptions

  constructor(options: StoreOptions) {
    this.#options = options
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
      const failed = mine.filter(({ result }) => result.state === 'failed')
      const failures = await enqueueFailures(trx, toIds(toClaims(failed)))
      return readChanges(trx, [...toIds(toClaims(mine)), ...failures])
    })
  }

  renew(claims: readonly Claim[], leaseMs: number): Promise<void> {
    return this.transaction(true, async (trx) => {
      const valid = await lockClaimed(trx, claims)
      const due_at = later(leaseMs)
      if (valid.size > 0) await update(trx, toIds([...valid]), { due_at }).execute()
    })
  }

  /** Invalid claims, each with its job if it exists. */
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

  async writeProgress({ id, fence }: Claim, progress: number, note: string | null) {
    const { numAffectedRows = 0n } = await sql`
      update job set progress = ${progress}, note = ${note}
      where id = ${id} and fence = ${fence} and state = 'running'
    `.execute(this.open(true))
    return numAffectedRows > 0n
  }

  promote(): Promise<JobChange[]> {
    return this.#moveDue('scheduled', async (trx, rows) => {
      await update(trx, toIds(rows), { state: 'queued' }).execute()
      return []
    })
  }

  /**
   * Reschedules jobs whose leases expired, at random times: one of them may crash the process that
   * runs it.
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
      const failed = rows.filter(({ attempt, maxAttempts }) => attempt >= maxAttempts)
      return enqueueFailures(trx, toIds(failed))
    })
  }

  async cancel(trx: Trx, ids: readonly string[]): Promise<JobChange[]> {
    const cancelled: JobUpdate = { state: 'cancelled', ...this.#ending }
    const changes = await changeFrom(trx, ids, UNFINISHED, cancelled)
    if (changes.length > 0) await closeAttempts(trx, toIds(changes), 'cancelled')
    return changes
  }

  /** They are not parked again for a day. */
  async retry(trx: Trx, ids: readonly string[]): Promise<JobChange[]> {
    const fresh = { attempt: 0, progress: 0, note: null, error: null, finished_at: null }
    const changes = await changeFrom(trx, ids, RETRYABLE, { ...QUEUED, ...fresh })
    await renewKinds(trx, [...new Set(changes.map(({ kind }) => kind))])
    return changes
  }

  async prune(): Promise<number> {
    let pruned = 0
    for (const state of FINISHED) {
      const ids = toIds((await dueQuery(state, CLEANUP_BATCH).execute(this.open(false))).rows)
      if (ids.length > 0) pruned += await this.transaction(false, (trx) => prune(trx, state, ids))
    }
    return pruned
  }

  /** Says that `kinds` have handlers; others get a day from when they are first seen. */
  async renewKinds(kinds: readonly string[]): Promise<void> {
    const known = await typed(this.open(false)).selectFrom('job_kind').select('kind').execute()
    const knownKinds = new Set(known.map(({ kind }) => kind))
    const found = await listKinds(this.open(false))
    await renewKinds(this.open(false), kinds)
    const newKinds = found.filter((kind) => !knownKinds.has(kind))
    await renewKinds(this.open(false), newKinds, sql`handled_at`)
  }

  /** Parks queued jobs of orphaned kinds. */
  async park(): Promise<JobChange[]> {
    const { rows } = await sql<{ kind: string }>`
      select kind from job_kind where handled_at < now(3) - interval ${ORPHAN_AFTER_DAYS} day
    `.execute(this.open(false))
    const kinds = rows.map(({ kind }) => kind)
    return this.#moveKinds(kinds, 'queued', { state: 'parked', due_at: null })
  }

  /** Returns parked jobs to the queue. */
  unpark(kinds: readonly string[]): Promise<JobChange[]> {
    return this.#moveKinds(kinds, 'parked', QUEUED)
  }

  async #moveKinds(
    kinds: readonly string[],
    from: 'queued' | 'parked',
    columns: JobUpdate,
  ): Promise<JobChange[]> {
    if (kinds.length === 0) return []
    const { rows: found } = await sql<{ id: string }>`
      select id from job force index (job_kind)
      where kind in (${idList(kinds)}) and state = ${from} limit ${sql.lit(CLEANUP_BATCH)}
    `.execute(this.open(false))
    if (found.length === 0) return []
    return this.transaction(false, (trx) =>
      changeFrom(trx, toIds(found), [from], columns, sql`skip locked`),
    )
  }

  async #moveDue(
    state: 'scheduled' | 'running',
    /** Resolves with the ids of jobs that it enqueued. */
    move: (trx: Trx, rows: readonly Due[]) => Promise<readonly string[]>,
  ): Promise<JobChange[]> {
    const { rows: found } = await dueQuery(state, MAINTENANCE_BATCH).execute(this.open(true))
    if (found.length === 0) return []
    return this.transaction(true, async (trx) => {
      const rows = await lockDue(trx, state, toIds(found))
      const further = rows.length > 0 ? await move(trx, rows) : []
      return readChanges(trx, [...toIds(rows), ...further])
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
      await update(trx, ids, { ...QUEUED, attempt: before, worker: null }).execute()
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

  open(reserved: boolean): Db {
    return this.#options.open(reserved)
  }

  transaction<T>(reserved: boolean, story: (trx: Trx) => Promise<T>): Promise<T> {
    return this.#options.transaction(this.open(reserved), story, 'read committed')
  }
}

export const CLAIM = sql`
  id, kind, fence, attempt, max_attempts as maxAttempts, request_id as requestId, subject, trace,
  error, limit_key as limitKey, input,
  timestampdiff(microsecond, ${QUEUED_AT}, now(3)) as waitMs
`

/** `force index`: with few rows, the planner may prefer another index and sort. */
export const claimQuery = (kind: string, limit: number) => sql<Claim>`
  select ${CLAIM} from job force index (job_queue)
  where state = 'queued' and kind = ${kind} order by ${ORDER} limit ${limit} for update skip locked
`

/** All columns of `job_queue`: MariaDB takes no enum for a constant, and would sort. */
export const ORDER = sql`state, kind, limit_key, priority, id`

export async function lockNamed(trx: Trx, ids: readonly string[]): Promise<Claim[]> {
  const { rows } = await sql<Claim>`
    select ${CLAIM} from job force index (primary)
    where id in (${idList(ids)}) and state = 'queued' order by id for update skip locked
  `.execute(trx)
  return rows
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
  unlessLocked = sql``,
): Promise<JobChange[]> {
  const { rows } = await sql<{ id: string }>`
    select id from job force index (primary)
    where id in (${idList(ids)}) and state in (${sql.join(states)})
    order by id for update ${unlessLocked}
  `.execute(trx)
  if (rows.length === 0) return []
  await update(trx, toIds(rows), columns).execute()
  return readChanges(trx, toIds(rows))
}

/** Ordered like `ORDER`, for the same reason. */
export const dueQuery = (state: JobState, limit: number) => sql<{ id: string }>`
  select id from job force index (job_due) where state = ${state} and due_at <= now(3)
  order by state, due_at limit ${sql.lit(limit)}
`

/** Leaves locked ones to other processes. */
async function lockDue(trx: Trx, state: JobState, ids: readonly string[]): Promise<Due[]> {
  const { rows } = await sql<Due>`
    select id, attempt, max_attempts as maxAttempts from job force index (primary)
    where id in (${idList(ids)}) and state = ${state} and due_at <= now(3)
    order by id for update skip locked
  `.execute(trx)
  return rows
}

async function renewKinds(
  db: Db,
  kinds: readonly string[],
  handledAt: RawBuilder<unknown> = sql`now(3)`,
): Promise<void> {
  if (kinds.length === 0) return
  await sql`
    insert into job_kind (kind, handled_at)
    values ${sql.join(kinds.toSorted().map((kind) => sql`(${kind}, now(3))`))}
    on duplicate key update handled_at = ${handledAt}
  `.execute(db)
}

async function prune(trx: Trx, state: JobState, ids: readonly string[]): Promise<number> {
  const rows = await lockDue(trx, state, ids)
  if (rows.length === 0) return 0
  // A long list of ids may become a scan, which waits for rows that others lock.
  await sql`
    delete job from json_table(${JSON.stringify(toIds(rows))}, '$[*]' columns (
      id char(36) character set ascii collate ascii_bin path '$'
    )) as old straight_join job force index (primary) on job.id = old.id
  `.execute(trx)
  return rows.length
}

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

/** For jobs whose handlers have an `onFailed`. Resolves with the new ids. */
async function enqueueFailures(trx: Trx, failed: readonly string[]): Promise<string[]> {
  if (failed.length === 0) return []
  const { rows } = await sql<{ id: string }>`
    select id from job where id in (${idList(failed)}) and on_failed
  `.execute(trx)
  const ids: string[] = []
  for (const { id } of rows) {
    const failure = randomUUIDv7()
    await sql`
      insert into job
        (id, kind, queue, state, priority, max_attempts, request_id, subject, trace, input)
      select ${failure}, concat(kind, ${toFailureName('')}), queue, 'queued', priority,
        ${sql.lit(FAILURE_ATTEMPTS)}, request_id, subject, trace,
        concat('{"id":"', id, '","error":', json_quote(error), ',"input":', input, '}')
      from job where id = ${id}
    `.execute(trx)
    ids.push(failure)
  }
  return ids
}

type JobUpdate = UpdateObject<JobTables, 'job'>

const QUEUED = { state: 'queued', due_at: sql<Date>`now(3)` } satisfies JobUpdate

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

export const later = (ms: number) => sql<Date>`now(3) + interval (${ms} * 1000) microsecond`

/** Padded to a power of two: the server keeps every statement that it prepared. */
export function idList(ids: readonly string[]): RawBuilder<string> {
  const length = 2 ** Math.ceil(Math.log2(ids.length))
  return sql.join(Array.from({ length }, (_, index) => ids[index] ?? ids.at(-1)))
}

export const toIds = (rows: readonly { id: string }[]) => rows.map(({ id }) => id)

export const toClaims = (attempts: readonly { claim: Claim }[]) =>
  attempts.map(({ claim }) => claim)
