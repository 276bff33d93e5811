import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'kysely'
import { describe, expect, test } from 'vitest'
import { transaction } from '../../../src/db/transaction.ts'
import { useDatabase } from '../../../test/support/database.ts'
import { until } from '../../../test/support/until.ts'
import { insertJobs, toNewJob } from '../enqueue.ts'
import { handle, type Job, job } from '../job.ts'
import { turnQuery } from '../limits.ts'
import { countJobs } from '../query.ts'
import type { Claim } from '../store.ts'
import type { Db } from '../tables.ts'
import { useClaims } from './support/claims.ts'
import { findMost } from './support/history.ts'
import { useJobs } from './support/jobs.ts'
import { readsOf } from './support/reads.ts'

const PROCESSES = 4

type Tenant = { tenant: string }

const putMany = <Input>(db: Db, some: Job<Input, unknown>, inputs: Input[], priority = 0) =>
  transaction(db, (trx) => insertJobs(trx, some, inputs, { priority }))

const nulls = (count: number) => Array.from({ length: count }, () => null)

const of = (tenant: string, count: number): Tenant[] =>
  Array.from({ length: count }, () => ({ tenant }))

describe('a limit of a kind', () => {
  const limited = job<null>('test.limited', { limit: 3 })

  test('is never exceeded by several processes that claim at once', async () => {
    const { database } = await useDatabase({ poolSize: 20 })
    const db = database.withSignal()
    await putMany(db, limited, nulls(40))
    const workers = Array.from({ length: 8 }, (_, index) =>
      useClaims(db, [limited], { worker: `w${index}`, pollMs: 0 }),
    )
    for (let turn = 0; turn < 5; turn++) {
      const claimed = (await Promise.all(workers.map(({ claim }) => claim(2)))).flat()
      expect((await countJobs(db)).running).toBeLessThanOrEqual(3)
      const result = { state: 'succeeded', result: 'null' } as const
      await workers[0]?.store.finish(claimed.map((claim) => ({ claim, result })))
    }
    expect((await countJobs(db)).succeeded).toBeGreaterThan(0)
  })

  test('keeps the place of a job whose process is gone until the lease has expired', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    await putMany(db, limited, nulls(5))
    const gone = useClaims(db, [limited], { worker: 'gone', leaseMs: -1_000 })
    const other = useClaims(db, [limited], { pollMs: 0 })
    expect(await gone.claim(3)).toHaveLength(3)
    expect(await other.claim(3)).toHaveLength(0)
    await other.store.rescue()
    expect(await other.claim(3)).toHaveLength(2)
  })

  test('is kept while jobs run, in all processes together, and all are done', async () => {
    const { database } = await useDatabase({ poolSize: 20 })
    const db = database.withSignal()
    const free = job<null>('test.free')
    const handlers = [handle(limited, () => sleep(20)), handle(free, () => sleep(5))]
    const processes = Array.from({ length: PROCESSES }, () =>
      useJobs(database, { handlers, timing: { pollMs: 50 } }),
    )
    await putMany(db, limited, nulls(60))
    await putMany(db, free, nulls(200))
    await until(async () => (await countJobs(db)).succeeded === 260, 'all are done', 30_000)
    const most = await findMost(db, 'kind')
    expect(most.get(limited.name)).toBe(3)
    expect(most.get(free.name)).toBeGreaterThan(3)
    expect(
      processes.filter(({ changes }) => changes.some(({ kind }) => kind === limited.name)),
    ).not.toHaveLength(0)
  })

  test('is not put off by kinds whose jobs always find room, with or without limits', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const free = job<null>('test.free')
    const busy = job<null>('test.busy', { queue: 'busy', limit: 100 })
    const mail = job<null>('test.mail', { queue: 'mail', limit: 3 })
    for (const kind of [free, busy]) await putMany(db, kind, nulls(50))
    await putMany(db, mail, nulls(1))
    const { claims } = useClaims(db, [free, busy, mail])
    const rooms = new Map(['default', 'busy', 'mail'].map((queue) => [queue, 2]))
    const kinds: string[] = []
    for (let turn = 0; turn < 3; turn++)
      kinds.push(...(await claims.claim(rooms)).claims.map(({ kind }) => kind))
    expect(new Set(kinds)).toEqual(new Set([free.name, busy.name, mail.name]))
  })

  test('leaves the places to other kinds while thousands of its jobs wait before them', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const free = job<null>('test.free')
    await putMany(db, limited, nulls(5_000), -1)
    await putMany(db, free, nulls(10))
    const { claims, claim } = useClaims(db, [limited, free])
    const taken: Claim[] = []
    for (let more = true; more; ) {
      const claimed = await claims.claim(new Map([['default', 13 - taken.length]]))
      taken.push(...claimed.claims)
      more = claimed.more && taken.length < 13
    }
    expect(taken.filter(({ kind }) => kind === free.name)).toHaveLength(10)
    expect(taken.filter(({ kind }) => kind === limited.name)).toHaveLength(3)
    expect(await claim(5)).toEqual([])
  })

  test('lets other processes pass while one claims jobs of the kind', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    await putMany(db, limited, nulls(5))
    const { claims, claim } = useClaims(db, [limited], { pollMs: 500 })
    expect(await claim(1)).toHaveLength(1)
    await transaction(db, async (trx) => {
      await sql`select kind from job_limit where kind = ${limited.name} for update`.execute(trx)
      const { claims: none, retryMs } = await claims.claim(new Map([['default', 1]]))
      expect(none).toEqual([])
      expect(retryMs).toBeLessThan(500)
    })
    await until(async () => (await claim(1)).length === 1, 'it is claimed')
  })
})

describe('a key', () => {
  const fair = job<Tenant>('test.fair', { key: ({ tenant }) => tenant })
  const single = job<Tenant>('test.single', { key: ({ tenant }) => tenant, limitPerKey: 1 })
  const tenantsOf = (claims: readonly Claim[]) =>
    claims.map(({ input }) => (JSON.parse(input) as Tenant).tenant)

  test('gives each of its values a turn', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    await putMany(db, fair, [...of('a', 6), ...of('b', 1), ...of('c', 2)])
    const { claim } = useClaims(db, [fair])
    expect(tenantsOf(await claim(4))).toEqual(['a', 'b', 'c', 'a'])
    expect(tenantsOf(await claim(9))).toEqual(['c', 'a', 'a', 'a', 'a'])
  })

  test('goes on with the next turn in another process', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    await putMany(db, fair, [...of('a', 5), ...of('b', 5), ...of('c', 5)])
    const [first, second] = [useClaims(db, [fair]), useClaims(db, [fair])]
    expect(tenantsOf(await first.claim(2))).toEqual(['a', 'b'])
    expect(tenantsOf(await second.claim(2))).toEqual(['c', 'a'])
  })

  test('has a limit of its own, and the urgent of one value go first', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    await putMany(db, single, [...of('a', 3), ...of('b', 3)])
    const { ids } = await putMany(db, single, of('b', 1), -1)
    const { claim, claims, store } = useClaims(db, [single])
    const claimed = await claim(5)
    expect(tenantsOf(claimed)).toEqual(['a', 'b'])
    expect(claimed[1]?.id).toBe(ids[0])
    expect(await claim(5)).toEqual([])
    const result = { state: 'succeeded', result: 'null' } as const
    await store.finish(claimed.slice(0, 1).map((claim) => ({ claim, result })))
    claims.release(single.name)
    expect(tenantsOf(await claim(5))).toEqual(['a'])
  })

  test('lets one job of a tenant start soon beside 10 000 of another', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const begun: string[] = []
    const run = async ({ tenant }: Tenant) => {
      begun.push(tenant)
      await sleep(30)
    }
    await putMany(db, single, of('many', 10_000))
    useJobs(database, { handlers: [handle(single, run)] })
    await until(() => begun.length > 3, 'some have begun')
    await putMany(db, single, of('one', 1))
    await until(() => begun.includes('one'), 'the one has begun', 2_000)
    expect(begun.length).toBeLessThan(1_000)
  })

  test('of tenants whose limits are reached costs no reads of their jobs', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    await putMany(db, single, [...of('a', 2_000), ...of('b', 2_000), ...of('c', 10)])
    const query = turnQuery(single.name, undefined, new Set(['a', 'b']), [])
    const { rows, reads } = await readsOf(db, query)
    expect(tenantsOf(rows)).toEqual(['c'])
    expect(reads).toBeLessThan(10)
  })

  test('of a kind that has had none before leaves the older jobs their turn', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    await putMany(db, job<Tenant>('test.fair'), of('old', 1))
    await putMany(db, fair, of('new', 2))
    const { claim } = useClaims(db, [fair])
    expect(tenantsOf(await claim(3)).toSorted()).toEqual(['new', 'new', 'old'])
  })

  test('that a kind had before leaves its jobs to be claimed', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    await putMany(db, fair, of('a', 2))
    expect(await useClaims(db, [job('test.fair')]).claim(5)).toHaveLength(2)
  })

  test.each(['', 'é', 'a b', 7, undefined, 'x'.repeat(101)])('cannot be %j', (tenant) => {
    expect(() => toNewJob(fair, { tenant: tenant as string })).toThrow(
      'Expected `key` of the job test.fair to return 1 to 100 ASCII characters without spaces',
    )
  })
})

describe('a rate', () => {
  const COUNT = 10
  const PER_MS = 1_000
  const rated = job<null>('test.rated', { rate: { count: COUNT, perMs: PER_MS } })

  test('is never exceeded in any such time by several processes, and uses what it allows', async () => {
    const { database } = await useDatabase({ poolSize: 20 })
    const db = database.withSignal()
    const handlers = [handle(rated, () => {})]
    for (let index = 0; index < PROCESSES; index++) useJobs(database, { handlers })
    await putMany(db, rated, nulls(4 * COUNT))
    await until(async () => (await countJobs(db)).succeeded === 4 * COUNT, 'all are done', 30_000)
    const attempts = await db.selectFrom('job_attempt').select('started_at').execute()
    const starts = attempts.map(({ started_at }) => started_at.getTime()).sort((a, b) => a - b)
    for (const [index, start] of starts.entries())
      expect((starts[index + COUNT] ?? Number.POSITIVE_INFINITY) - start).toBeGreaterThanOrEqual(
        PER_MS,
      )
    expect((starts.at(-1) as number) - (starts[0] as number)).toBeLessThan(10 * PER_MS)
  })

  test('says when it allows more', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const perMs = 60_000
    const slow = job<null>('test.slow', { rate: { count: COUNT, perMs } })
    await putMany(db, slow, nulls(COUNT + 1))
    const { claims, claim } = useClaims(db, [slow], { pollMs: 2 * perMs })
    expect(await claim(COUNT)).toHaveLength(COUNT)
    const { claims: none, retryMs } = await claims.claim(new Map([['default', 1]]))
    expect(none).toEqual([])
    expect(retryMs).toBeGreaterThan(0)
    expect(retryMs).toBeLessThanOrEqual(1.1 * perMs)
  })
})
