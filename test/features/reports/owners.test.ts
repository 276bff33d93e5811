import { Pool } from '@offloop/workpool/pool'
import { CompiledQuery } from 'kysely'
import { io } from 'socket.io-client'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import * as migration from '../../../migrations/006-report-owner.ts'
import { MysqlConnection } from '../../../src/db/connection.ts'
import { canRead, listReports } from '../../../src/features/reports/reports.ts'
import { useDatabase } from '../../support/database.ts'
import { AS_OPERATOR, addMember, OPERATOR, OPERATOR_AUTH } from '../../support/operator.ts'
import { accept, post, untilFinished } from '../../support/reports.ts'
import { request, startService } from '../../support/service.ts'

const CSV = 'a,b\nx,2\n'

let service: Awaited<ReturnType<typeof startService>>
let url: string
let ann: Awaited<ReturnType<typeof addMember>>
let bob: Awaited<ReturnType<typeof addMember>>

beforeAll(async () => {
  service = await startService()
  url = service.url
  ann = await addMember(service.database.withSignal(), 'ann')
  bob = await addMember(service.database.withSignal(), 'bob')
})
afterAll(() => service.close())

const key = (value: string, as: Record<string, string>) => ({
  headers: { 'idempotency-key': value, ...as },
})

const idsOf = async (as: Record<string, string>, query = ''): Promise<string[]> => {
  const { body } = await request(`${url}/v1/reports?limit=100${query}`, 'GET', undefined, as)
  return body.items.map(({ id }: { id: string }) => id)
}

describe('a report', () => {
  test("is its uploader's and the operators', and for others it is not there", async () => {
    const { id } = await accept(url, CSV, { query: '?groupBy=a', headers: ann.as })
    await untilFinished(url, id, undefined, ann.as)
    const calls = [
      ['GET', ''],
      ['GET', '?format=csv'],
      ['GET', '/events'],
      ['DELETE', ''],
    ] as const
    for (const [method, rest] of calls) {
      const statusAs = async (headers: Record<string, string>) =>
        (await fetch(`${url}/v1/reports/${id}${rest}`, { method, headers })).status
      const found = method === 'DELETE' ? 202 : 200
      expect([await statusAs(bob.as), await statusAs(ann.as), await statusAs(AS_OPERATOR)]).toEqual(
        [404, found, found],
      )
    }
  })

  test('cannot be cancelled by another member', async () => {
    const { id } = await accept(url, CSV, { headers: ann.as })
    const path = `${url}/v1/reports/${id}`
    const { body } = await request(path, 'DELETE', undefined, bob.as)
    expect(body).toMatchObject({ code: 'not_found', detail: `There is no report ${id}` })
    expect((await untilFinished(url, id, undefined, ann.as)).state).toBe('succeeded')
  })

  test('is in the list of its owner and of the operators only', async () => {
    const { id: first } = await accept(url, CSV, { headers: ann.as })
    const { id: other } = await accept(url, CSV, { headers: bob.as })
    const { id: last } = await accept(url, CSV, { headers: ann.as })
    expect((await idsOf(ann.as)).slice(0, 2)).toEqual([last, first])
    expect((await idsOf(bob.as))[0]).toBe(other)
    expect((await idsOf(AS_OPERATOR)).slice(0, 3)).toEqual([last, other, first])
  })

  test("from before there were owners is the operators' only", async () => {
    const { id } = await accept(url, CSV, { headers: ann.as })
    const reports = service.database.withSignal().updateTable('report')
    await reports.set({ owner: null }).where('id', '=', id).execute()
    const path = `${url}/v1/reports/${id}`
    expect((await request(path, 'GET', undefined, ann.as)).status).toBe(404)
    expect((await request(path)).status).toBe(200)
    expect(await idsOf(ann.as)).not.toContain(id)
    expect(await idsOf(AS_OPERATOR)).toContain(id)
  })

  test('has a job that names its owner', async () => {
    const { id } = await accept(url, CSV, { headers: ann.as })
    expect((await request(`${url}/v1/jobs/${id}`)).body.subject).toBe(ann.id)
  })

  test("takes its owner's turn at the threads", async () => {
    const run = vi.spyOn(Pool.prototype, 'run')
    onTestFinished(() => run.mockRestore())
    const { id } = await accept(url, 'a\nturn\n', { headers: bob.as })
    await untilFinished(url, id, undefined, bob.as)
    // Reports of earlier tests may still be summarised.
    const calls = run.mock.calls.filter(([, input]) => JSON.stringify(input).includes(id))
    expect(calls.map(([, , options]) => options?.key)).toEqual([bob.id])
  })
})

test("an Idempotency-Key is its owner's own", async () => {
  const first = await accept(url, 'a\n1\n', key('same', ann.as))
  const others = await accept(url, 'a\n2\n', key('same', bob.as))
  expect(others.id).not.toBe(first.id)
  expect((await accept(url, 'a\n1\n', key('same', ann.as))).id).toBe(first.id)
  expect((await post(url, 'a\n2\n', key('same', ann.as))).status).toBe(409)
})

test('two owners with one Idempotency-Key do not keep the migration from being undone', async () => {
  const { database } = await useDatabase()
  const db = database.withSignal()
  const jobs = ['a', 'b'].map((id) => ({ id, kind: 'k', priority: 0, max_attempts: 1, input: '' }))
  await db
    .insertInto('job')
    .values(jobs.map((job) => ({ ...job, state: 'queued' })))
    .execute()
  const reports = jobs.map(({ id }) => ({ id, owner: id, bytes: 1, sha256: 'x' }))
  await db
    .insertInto('report')
    .values(reports.map((report) => ({ ...report, idempotency_key: 'same' })))
    .execute()
  await migration.down(db as never)
  await migration.up(db as never)
  expect(await db.selectFrom('report').select('owner').execute()).toEqual(
    Array(2).fill({ owner: null }),
  )
})

test('a result is used again for the same file of the same owner only', async () => {
  const rowsOf = async (as: Record<string, string>) => {
    const { id } = await accept(url, 'a\nreused\n', { headers: as })
    return { id, rows: (await untilFinished(url, id, undefined, as)).result?.rows }
  }
  const { id } = await rowsOf(ann.as)
  const { result } = await untilFinished(url, id, undefined, ann.as)
  const jobs = service.database.withSignal().updateTable('job')
  await jobs
    .set({ result: JSON.stringify({ ...result, rows: 77 }) })
    .where('id', '=', id)
    .execute()
  expect([(await rowsOf(ann.as)).rows, (await rowsOf(bob.as)).rows]).toEqual([77, 1])
})

test('the topic of a report takes its owner and operators', async () => {
  const { id } = await accept(url, CSV, { headers: ann.as })
  const subscribeAs = async (auth: object, topic = `report:${id}`) => {
    const socket = io(url, { transports: ['websocket'], forceNew: true, auth })
    onTestFinished(() => void socket.close())
    return socket.emitWithAck('subscribe', topic)
  }
  expect(await subscribeAs(ann.auth)).toEqual({ ok: true })
  expect(await subscribeAs(ann.auth, `report:${id.toUpperCase()}`)).toEqual({ ok: true })
  expect(await subscribeAs(OPERATOR_AUTH.auth)).toEqual({ ok: true })
  expect(await subscribeAs(bob.auth)).toMatchObject({ ok: false, code: 'not_found' })
  expect(await subscribeAs({})).toMatchObject({ ok: false, code: 'unauthenticated' })
})

test("a page of an owner's list is read from an index, without sorting", async () => {
  const { database } = await useDatabase()
  const db = database.withSignal()
  const ids = Array.from(
    { length: 2_000 },
    (_, row) => `01000000-0000-7000-8000-${String(row).padStart(12, '0')}`,
  )
  const job = { kind: 'report.build', state: 'succeeded', priority: 0, max_attempts: 1 } as const
  await db
    .insertInto('job')
    .values(ids.map((id) => ({ id, ...job, input: 'null' })))
    .execute()
  const owner = (row: number) => `account:${row % 20}`
  await db
    .insertInto('report')
    .values(ids.map((id, row) => ({ id, owner: owner(row), bytes: 1, sha256: 'x' })))
    .execute()
  await db.executeQuery(CompiledQuery.raw('analyze table job, report'))
  const spy = vi.spyOn(MysqlConnection.prototype, 'executeQuery')
  onTestFinished(() => spy.mockRestore())
  const reader = { ...OPERATOR, id: owner(7), scopes: new Set(['reports:read']) }
  const { items, nextCursor } = await listReports(db, reader, { limit: 20, cursor: undefined })
  const next = await listReports(db, reader, { limit: 20, cursor: nextCursor ?? '' })
  expect([...items, ...next.items].map(({ id }) => Number(id.slice(-12)) % 20)).toEqual(
    Array(40).fill(7),
  )
  expect(await canRead(db, items[0]?.id ?? '', { ...reader, id: owner(8) })).toBe(false)
  const statements = spy.mock.calls.map(([query]) => query)
  spy.mockRestore()
  for (const { sql: text, parameters } of statements) {
    const explain = CompiledQuery.raw(`explain format = traditional ${text}`, [...parameters])
    const { rows } = await db.executeQuery<Record<string, string | null>>(explain)
    expect
      .soft(rows.map(({ type, Extra }) => `${type} ${Extra}`).join(', '), text)
      .not.toMatch(/\bALL\b|(^|, )index |filesort|temporary/)
  }
})
