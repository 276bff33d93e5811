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
  limitKey: string
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
    return this.#moveDue('scheduled', async (trx, rows) => {
      await update(trx, toIds(rows), { state: 'queued', due_at: null }).execute()
      return []
    })
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
      const failed = rows.filter(({ attempt, maxAttempts }) => attempt >= maxAttempts)
      return enqueueFailures(trx, toIds(failed))
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
    /** Resolves with the ids of further jobs that it enqueued. */
    move: (trx: Trx, rows: readonly Due[]) => Promise<readonly string[]>,
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

  open(reserved: boolean): Db {
    return this.#options.open(reserved)
  }

  transaction<T>(reserved: boolean, story: (trx: Trx) => Promise<T>): Promise<T> {
    return this.#options.transaction(this.open(reserved), story, 'read committed')
  }
}

export const CLAIM = sql`
  id, kind, fence, attempt, max_attempts as maxAttempts, request_id as requestId, subject, trace,
  error, limit_key as limitKey, input
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

/** For jobs whose handlers have an `onFailed`. Resolves with the ids of all that may be enqueued. */
async function enqueueFailures(trx: Trx, failed: readonly string[]): Promise<string[]> {
  const ids: string[] = []
  for (const id of failed) {
    const failure = randomUUIDv7()
    await sql`
      insert into job
        (id, kind, queue, state, priority, max_attempts, request_id, subject, input)
      select ${failure}, concat(kind, ${toFailureName('')}), queue, 'queued', priority,
        ${sql.lit(FAILURE_ATTEMPTS)}, request_id, subject,
        concat('{"id":"', id, '","error":', json_quote(error), ',"input":', input, '}')
      from job where id = ${id} and on_failed
    `.execute(trx)
    ids.push(failure)
  }
  return ids
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

export const later = (ms: number) => sql<Date>`now(3) + interval (${ms} * 1000) microsecond`

/** Padded to a power of two, because the server keeps every statement that it prepared. */
export function idList(ids: readonly string[]): RawBuilder<string> {
  const length = 2 ** Math.ceil(Math.log2(ids.length))
  return sql.join(Array.from({ length }, (_, index) => ids[index] ?? ids.at(-1)))
}

export const toIds = (rows: readonly { id: string }[]) => rows.map(({ id }) => id)

export const toClaims = (attempts: readonly { claim: Claim }[]) =>
  attempts.map(({ claim }) => claim)
