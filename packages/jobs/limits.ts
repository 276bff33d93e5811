import { sql } from 'kysely'
import type { Job, Rate } from './job.ts'
import { CLAIM, type Claim, claimQuery, idList, ORDER, toIds } from './store.ts'
import { type Trx, typed } from './tables.ts'

/** Another process is claiming jobs of the kind. */
const RETRY_LOCKED_MS = 50
/** Starts are counted by so many parts of a rate's time. */
const RATE_STEPS = 20

interface Claimed {
  rows: Claim[]
  /** Until a limit may allow more, at the longest; undefined if none is reached. */
  fullMs?: number
}

/**
 * Claims jobs of one kind within its limits. Its row is locked, so that no two processes take the
 * last place; none waits for that lock. A lost job keeps its place until it is rescued.
 */
export async function claimWithinLimits(
  trx: Trx,
  job: Job<never, unknown>,
  wanted: number,
  begin: (rows: readonly Claim[]) => Promise<Claim[]>,
): Promise<Claimed> {
  const locked = await lockKind(trx, job.name)
  if (!locked) return { rows: [], fullMs: RETRY_LOCKED_MS }
  const running = await countRunning(trx, job)
  const started = job.rate && (await countStarts(trx, job.rate, locked.starts))
  const places = job.limit - [...running.values()].reduce((sum, count) => sum + count, 0)
  const room = Math.min(wanted, places, started?.room ?? Number.POSITIVE_INFINITY)
  const { rows, lastKey, isFull } = await lockJobs(trx, job, { room, running, ...locked })
  const claims = await begin(rows)
  if (rows.length > 0 && (job.key || started)) {
    const starts = started ? await started.add(rows.length) : locked.starts
    const changed = typed(trx).updateTable('job_limit').set({ last_key: lastKey, starts })
    await changed.where('kind', '=', job.name).execute()
  }
  if (room >= wanted && !isFull) return { rows: claims }
  const isPlaceFree = places >= wanted && !isFull
  return { rows: claims, fullMs: (isPlaceFree && started?.freeMs) || Number.POSITIVE_INFINITY }
}

async function lockKind(trx: Trx, kind: string) {
  const { rows } = await sql<{ lastKey: string; starts: string }>`
    select last_key as lastKey, starts from job_limit where kind = ${kind} for update skip locked
  `.execute(trx)
  return rows[0]
}

async function countRunning(trx: Trx, { name, limit, limitPerKey }: Job<never, unknown>) {
  if (!Number.isFinite(limit) && !Number.isFinite(limitPerKey)) return new Map<string, number>()
  const { rows } = await sql<{ key: string; count: string }>`
    select limit_key as \`key\`, count(*) as count from job force index (job_queue)
    where state = 'running' and kind = ${name} group by state, kind, limit_key
  `.execute(trx)
  return new Map(rows.map(({ key, count }) => [key, Number(count)]))
}

interface Allowed {
  room: number
  running: Map<string, number>
  lastKey: string
}

async function lockJobs(
  trx: Trx,
  job: Job<never, unknown>,
  { room, running, lastKey }: Allowed,
): Promise<{ rows: Claim[]; lastKey: string; isFull: boolean }> {
  if (room <= 0) return { rows: [], lastKey, isFull: false }
  if (job.key) return lockInTurns(trx, job, { room, running, lastKey })
  const { rows } = await claimQuery(job.name, room).execute(trx)
  return { rows, lastKey, isFull: false }
}

/** One job of each key in turn. */
async function lockInTurns(
  trx: Trx,
  { name, limitPerKey }: Job<never, unknown>,
  { room, running, lastKey }: Allowed,
) {
  const rows: Claim[] = []
  const full = new Set([...running.keys()].filter((key) => isFull(key)))
  let last: string | undefined = lastKey
  while (rows.length < room) {
    const [row]: Claim[] = (await turnQuery(name, last, full, toIds(rows)).execute(trx)).rows
    if (!row && last === undefined) break
    last = row?.limitKey
    if (!row) continue
    rows.push(row)
    running.set(row.limitKey, (running.get(row.limitKey) ?? 0) + 1)
    if (isFull(row.limitKey)) full.add(row.limitKey)
  }
  const turn = rows.at(-1)?.limitKey ?? lastKey
  return { rows, lastKey: turn, isFull: rows.length < room && full.size > 0 }

  function isFull(key: string) {
    return (running.get(key) ?? 0) >= limitPerKey
  }
}

/** Servers read ranges between the keys left out, not their rows. */
export const turnQuery = (
  kind: string,
  after: string | undefined,
  without: ReadonlySet<string>,
  taken: readonly string[],
) => sql<Claim>`
  select ${CLAIM} from job force index (job_queue)
  where state = 'queued' and kind = ${kind}
    ${after === undefined ? sql`` : sql`and limit_key > ${after}`}
    ${without.size === 0 ? sql`` : sql`and limit_key not in (${idList([...without])})`}
    ${taken.length === 0 ? sql`` : sql`and id not in (${idList(taken)})`}
  order by ${ORDER} limit 1 for update skip locked
`

/** A start counts until `perMs` after the end of its part of the time: never too many run. */
async function countStarts(trx: Trx, { count, perMs }: Rate, text: string) {
  const now = await readClock(trx)
  const all: [number, number][] = JSON.parse(text)
  const recent = all.filter(([end]) => end + perMs > now)
  const room = count - recent.reduce((sum, [, starts]) => sum + starts, 0)
  const [oldest] = recent
  return {
    room,
    freeMs: oldest && oldest[0] + perMs - now,
    async add(starts: number) {
      const stepMs = Math.ceil(perMs / RATE_STEPS)
      const end = (Math.floor((await readClock(trx)) / stepMs) + 1) * stepMs
      const last = recent.at(-1)
      if (last?.[0] === end) last[1] += starts
      else recent.push([end, starts])
      return JSON.stringify(recent)
    },
  }
}

/** Not `now(3)` of a statement that waited for a lock. */
async function readClock(trx: Trx): Promise<number> {
  const { rows } = await sql<{ now: string }>`select unix_timestamp(now(3)) * 1000 as now`.execute(
    trx,
  )
  return Number(rows[0]?.now)
}
