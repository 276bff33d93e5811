import { sql, type Transaction } from 'kysely'
import type { Db } from '../../src/db/database.ts'
import type { Tables } from '../../src/db/tables.ts'
import { transaction } from '../../src/db/transaction.ts'
import { CHANGE_COLUMNS, FINISHED, isFinished, type JobChange } from './job.ts'
import { type Due, findDue, idsOf, lockDue, lockHeld, lockNamed } from './locks.ts'
import {
  closeAttempts,
  columns,
  idList,
  later,
  lockJob,
  now,
  readChanges,
  readJob,
} from './queries.ts'
import { Queue } from './queue.ts'
import { type Claim, type JobRecord, type Settlement, toChange, toRecord } from './record.ts'
import type { JobState } from './tables.ts'

type Trx = Transaction<Tables>

const PRUNE_BATCH = 500
/** For how many sets of kinds it is known how their queue is best read. */
const MAX_QUEUES = 16
/** How far ahead the queue is searched for kinds that nobody here can do. */
const KINDS_LOOKAHEAD = 1_000
/**
 * What a job waits at most after it lost its process for the first time; doubled each time, up to
 * the second.
 */
const LOSS_BACKOFF_MS = 1_000
const MAX_LOSS_BACKOFF_MS = 60_000

export interface ClaimOptions {
  worker: string
  /** What can be begun here now. */
  kinds: ReadonlySet<string>
  /** How many of a kind at most; as many as `limit` if absent. */
  roomFor?: ((kind: string) => number) | undefined
  limit: number
  leaseMs: number
  /** Only these, where the engine delivers ids; else the first ones of the queue. */
  ids?: readonly string[] | undefined
}

export interface Claimed {
  claims: Claim[]
  /** Whether there may be more in the queue. */
  more: boolean
}

/**
 * The truth about jobs: their rows. Everything that happens to a job happens here, in a transaction
 * under READ COMMITTED, so that only the rows that are meant get locked; always the job before its
 * attempts, jobs in the order of their ids. What delivers jobs to workers is the engine's business.
 */
export class JobStore {
  readonly #open: () => Db
  readonly #openReserved: () => Db
  readonly #keepMs: number
  readonly #queues = new Map<string, Queue>()

  /**
   * @param open gives a handle for one call, with the signal that ends it.
   * @param openReserved the same for what must not wait behind requests: what says that a job goes
   * on, or how it ended.
   */
  constructor(
    open: () => Db,
    { keepMs, openReserved = open }: { keepMs: number; openReserved?: () => Db },
  ) {
    this.#open = open
    this.#openReserved = openReserved
    this.#keepMs = keepMs
  }

  /**
   * Takes queued jobs for a worker: each gets a lease, a fence, and counts one more attempt. Jobs
   * of other kinds than these stay where they are, for other processes or for later.
   */
  claim(options: ClaimOptions): Promise<Claimed> {
    const { kinds, roomFor, limit, ids } = options
    const queue = this.#queueOf(kinds)
    return this.#transaction(async (trx) => {
      const { rows, more } = ids
        ? { rows: await lockNamed(trx, ids.slice(0, limit)), more: false }
        : await queue.lock(trx, limit)
      const wanted = rows.filter(({ kind }) => kinds.has(kind)).filter(stillFits(roomFor))
      return { claims: await begin(trx, wanted, options), more }
    })
  }

  /** The kinds other than these that are among the first of the queue. */
  async otherKinds(kinds: ReadonlySet<string>): Promise<string[]> {
    const { rows } = await sql<{ kind: string }>`
      select distinct kind from (
        select kind from job force index (job_queue) where state = 'queued' order by priority, id limit ${sql.lit(KINDS_LOOKAHEAD)}
      ) as first
    `.execute(this.#open())
    return rows.map(({ kind }) => kind).filter((kind) => !kinds.has(kind))
  }

  /**
   * Writes how attempts ended, and gives the jobs that it ended for: not those that the worker held
   * no more.
   */
  settle(settlements: readonly Settlement[]): Promise<JobChange[]> {
    return this.#transaction(async (trx) => {
      const held = await lockHeld(
        trx,
        settlements.map(({ claim }) => claim),
      )
      const mine = settlements.filter(({ claim }) => held.has(claim))
      const bare = mine.filter(
        ({ outcome }) => outcome.state === 'succeeded' && outcome.result === 'null',
      )
      if (bare.length > 0) await this.#succeed(trx, idsOf(bare.map(({ claim }) => claim)), null)
      for (const settlement of mine)
        if (!bare.includes(settlement)) await this.#settleOne(trx, settlement)
      return readChanges(trx, idsOf(mine.map(({ claim }) => claim)))
    }, this.#openReserved())
  }

  /** Makes the leases of what the worker still holds last for another `leaseMs`. */
  renew(claims: readonly Claim[], leaseMs: number): Promise<void> {
    return this.#transaction(async (trx) => {
      const held = await lockHeld(trx, claims)
      if (held.size > 0)
        await sql`update job set due_at = ${later(leaseMs)} where id in (${idList(idsOf([...held]))})`.execute(
          trx,
        )
    }, this.#openReserved())
  }

  /**
   * The claims that hold no more, each with what became of the job; nothing if the job itself is
   * gone.
   */
  async lost(claims: readonly Claim[]): Promise<Map<Claim, JobChange | undefined>> {
    const { rows } = await sql<JobChange & { fence: number }>`
      select ${columns(['fence', ...CHANGE_COLUMNS])} from job where id in (${idList(idsOf(claims))})
    `.execute(this.#openReserved())
    const byId = new Map(rows.map((row) => [row.id, row]))
    const gone = claims.filter(
      ({ id, fence }) => byId.get(id)?.fence !== fence || byId.get(id)?.state !== 'running',
    )
    return new Map(
      gone.map((claim) => [claim, byId.get(claim.id) && toChange(byId.get(claim.id) as JobChange)]),
    )
  }

  /** Writes how far a job is; false when the worker holds it no more. */
  async report({ id, fence }: Claim, progress: number, note: string | null): Promise<boolean> {
    const { numUpdatedRows } = await this.#openReserved()
      .updateTable('job')
      .set({ progress, note })
      .where('id', '=', id)
      .where('fence', '=', fence)
      .where('state', '=', 'running')
      .executeTakeFirst()
    return numUpdatedRows > 0n
  }

  /** Queues scheduled jobs whose time has come, and tells which. */
  promote(): Promise<JobChange[]> {
    return this.#moveDue('scheduled', (trx, rows) =>
      sql`update job set state = 'queued', due_at = null where id in (${idList(idsOf(rows))})`.execute(
        trx,
      ),
    )
  }

  /**
   * Takes jobs from workers whose leases ran out: schedules them again, or fails those that used up
   * their attempts.
   */
  reclaim(): Promise<JobChange[]> {
    return this.#moveDue('running', async (trx, rows) => {
      await closeAttempts(
        trx,
        idsOf(rows),
        'lost',
        'The process that ran it ended, or could not say in time that it goes on',
      )
      for (const { id, attempt, maxAttempts } of rows)
        if (attempt >= maxAttempts)
          await this.#fail(trx, id, 'Every process that began it ended before it was done')
        else await requeueLost(trx, id, attempt)
    })
  }

  /** Ends an unfinished job, wherever it runs; its worker will see that it holds it no more. */
  async cancel(trx: Trx, id: string): Promise<{ job: JobRecord; changed: boolean } | undefined> {
    const row = await lockJob(trx, id)
    if (!row || isFinished(row.state)) return row && { job: toRecord(row), changed: false }
    await trx
      .updateTable('job')
      .set({ state: 'cancelled', ...this.#ending() })
      .where('id', '=', id)
      .execute()
    await closeAttempts(trx, [id], 'cancelled')
    return { job: await readJob(trx, id), changed: true }
  }

  /** Queues a failed or cancelled job again, with all of its attempts. */
  async retry(trx: Trx, id: string): Promise<{ job: JobRecord; changed: boolean } | undefined> {
    const row = await lockJob(trx, id)
    if (!row || (row.state !== 'failed' && row.state !== 'cancelled'))
      return row && { job: toRecord(row), changed: false }
    const fresh = {
      attempt: 0,
      progress: 0,
      note: null,
      error: null,
      due_at: null,
      finished_at: null,
    }
    await trx
      .updateTable('job')
      .set({ state: 'queued', ...fresh })
      .where('id', '=', id)
      .execute()
    return { job: await readJob(trx, id), changed: true }
  }

  /**
   * Deletes finished jobs that were kept for long enough, and gives their number: as many as one
   * bite takes.
   */
  async prune(): Promise<number> {
    let pruned = 0n
    for (const state of FINISHED) {
      const { numAffectedRows = 0n } = await this.#transaction((trx) =>
        pruneQuery(state).execute(trx),
      )
      pruned += numAffectedRows
    }
    return Number(pruned)
  }

  async #moveDue(
    state: 'scheduled' | 'running',
    move: (trx: Trx, rows: Due[]) => Promise<unknown>,
  ): Promise<JobChange[]> {
    const ids = await findDue(this.#openReserved(), state)
    if (ids.length === 0) return []
    return this.#transaction(async (trx) => {
      const rows = await lockDue(trx, state, ids)
      if (rows.length === 0) return []
      await move(trx, rows)
      return readChanges(trx, idsOf(rows))
    }, this.#openReserved())
  }

  async #settleOne(trx: Trx, { claim: { id }, outcome }: Settlement): Promise<void> {
    if (outcome.state === 'succeeded') return this.#succeed(trx, [id], outcome.result)
    if (outcome.state === 'queued') return giveBack(trx, id)
    await closeAttempts(trx, [id], 'failed', outcome.detail)
    if (outcome.state === 'failed') return this.#fail(trx, id, outcome.error)
    const { state, error, delayMs } = outcome
    await trx
      .updateTable('job')
      .set({ state, error, due_at: later(delayMs), worker: null })
      .where('id', '=', id)
      .execute()
  }

  async #succeed(trx: Trx, ids: string[], result: string | null): Promise<void> {
    const { due_at, finished_at } = this.#ending()
    await sql`
      update job set state = 'succeeded', result = ${result}, progress = 1, error = null, worker = null, dedupe_key = null,
        due_at = ${due_at}, finished_at = ${finished_at} where id in (${idList(ids)})
    `.execute(trx)
    await closeAttempts(trx, ids, 'succeeded')
  }

  async #fail(trx: Trx, id: string, error: string): Promise<void> {
    await trx
      .updateTable('job')
      .set({ state: 'failed', error, ...this.#ending() })
      .where('id', '=', id)
      .execute()
  }

  /** What every end has in common. */
  #ending() {
    return { worker: null, dedupe_key: null, due_at: later(this.#keepMs), finished_at: now }
  }

  /** The kinds that are claimed change with the room that there is for each. */
  #queueOf(kinds: ReadonlySet<string>): Queue {
    const key = [...kinds].join(' ')
    const queue = this.#queues.get(key) ?? new Queue([...kinds])
    if (this.#queues.size >= MAX_QUEUES && !this.#queues.has(key)) this.#queues.clear()
    this.#queues.set(key, queue)
    return queue
  }

  #transaction<T>(story: (trx: Trx) => Promise<T>, db = this.#open()): Promise<T> {
    return transaction(db, story, 'read committed')
  }
}

/**
 * Whether there is still room for the kind of a job, for a list of jobs that it is asked of in
 * order.
 */
function stillFits(roomFor: ClaimOptions['roomFor']): (job: Claim) => boolean {
  const counts = new Map<string, number>()
  return ({ kind }) => {
    const count = (counts.get(kind) ?? 0) + 1
    counts.set(kind, count)
    return count <= (roomFor?.(kind) ?? Number.POSITIVE_INFINITY)
  }
}

async function begin(
  trx: Trx,
  rows: readonly Claim[],
  { worker, leaseMs }: ClaimOptions,
): Promise<Claim[]> {
  if (rows.length === 0) return []
  const ids = idsOf(rows)
  await sql`
    update job set state = 'running', attempt = attempt + 1, fence = fence + 1, worker = ${worker}, progress = 0, note = null,
      started_at = now(3), due_at = ${later(leaseMs)} where id in (${idList(ids)})
  `.execute(trx)
  await sql`
    insert into job_attempt (job_id, fence, attempt, worker)
    select id, fence, attempt, worker from job where id in (${idList(ids)})
  `.execute(trx)
  return rows.map((row) => ({ ...row, fence: row.fence + 1, attempt: row.attempt + 1 }))
}

/**
 * One bite of finished jobs of a state. Ordered by both columns of the index, because MariaDB sorts
 * all that is due by `due_at` alone: the collation of the connection keeps it from taking `state`
 * for a constant.
 */
export const pruneQuery = (state: JobState) => sql`
  delete from job where state = ${state} and due_at < now(3) order by state, due_at limit ${sql.lit(PRUNE_BATCH)}
`

/** The attempt does not count: it was our stop that ended it. */
async function giveBack(trx: Trx, id: string): Promise<void> {
  await sql`update job set state = 'queued', attempt = attempt - 1, worker = null, due_at = null where id = ${id}`.execute(
    trx,
  )
  await closeAttempts(trx, [id], 'released')
}

/**
 * Some of these jobs may be what ended the process, together with all that it ran: each waits for a
 * random time, so that it does not meet the same neighbours again.
 */
async function requeueLost(trx: Trx, id: string, attempt: number): Promise<void> {
  const due_at = later(
    Math.random() * Math.min(LOSS_BACKOFF_MS * 2 ** (attempt - 1), MAX_LOSS_BACKOFF_MS),
  )
  await trx
    .updateTable('job')
    .set({ state: 'scheduled', due_at, worker: null })
    .where('id', '=', id)
    .execute()
}
