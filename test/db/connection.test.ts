import { promisify } from 'node:util'
import { CompiledQuery, sql } from 'kysely'
import { createPool, type PoolConnection } from 'mysql2'
import { createConnection } from 'mysql2/promise'
import { describe, expect, inject, onTestFinished, test, vi } from 'vitest'
import { MysqlConnection } from '../../src/db/connection.ts'
import { Database, type Db } from '../../src/db/database.ts'
import { canOwnServer, useOwnServer } from '../support/own-server.ts'
import { useProxy } from '../support/proxy.ts'
import { until } from '../support/until.ts'

const TWO_SERVERS_TIMEOUT_MS = 60_000
const PING_TIMEOUT_MS = 250

const sleepFor = (db: Db, seconds: number) =>
  sql`select sleep(${sql.lit(seconds)}) as slept`.execute(db)

async function openDatabase(url: string, poolSize: number): Promise<Database> {
  const database = await Database.open({ url, poolSize })
  onTestFinished(() => database[Symbol.asyncDispose]())
  return database
}

async function isRunning(url: string, statement: string): Promise<boolean> {
  const connection = await createConnection({ uri: url })
  const [rows] = await connection.query('show full processlist')
  await connection.end()
  return JSON.stringify(rows).includes(statement)
}

/**
 * Idle sessions of another program, enough for each id that the first server gives out in a test;
 * tells how many ended.
 */
async function openBystanders(url: string, count: number) {
  const connections = await Promise.all(
    Array.from({ length: count }, () => createConnection({ uri: url })),
  )
  let ended = 0
  for (const connection of connections) connection.on('error', () => ended++)
  onTestFinished(() => void connections.map((connection) => connection.destroy()))
  const ids = connections.map(({ threadId }) => threadId)
  return { ended: () => ended, ids }
}

describe.runIf(canOwnServer)('behind a balancer', { timeout: TWO_SERVERS_TIMEOUT_MS }, () => {
  test('an aborted statement is killed on its own server, and nobody else’s session on another', async () => {
    const urls = await openTwoServers()
    const bystanders = await openBystanders(urls[1], 60)
    const proxy = await useProxy((index) => urls[index % 2] as string)
    const database = await openDatabase(proxy.urlOf(urls[0]), 4)
    for (let round = 0; round < 8; round++) {
      const startedAt = performance.now()
      await expect(sleepFor(database.withSignal(AbortSignal.timeout(30)), 60)).rejects.toThrow(
        'timeout',
      )
      expect(performance.now() - startedAt).toBeLessThan(5_000)
    }
    await until(() => database.semaphore.inUse === 0, 'all statements have ended', 15_000)
    for (const url of urls)
      await until(async () => !(await isRunning(url, 'sleep(60)')), 'it was killed', 15_000)
    expect(bystanders.ended()).toBe(0)
  })

  test('a statement that cannot be killed keeps its permit until it ends, and its caller does not wait for that', async () => {
    const urls = await openTwoServers()
    const bystanders = await openBystanders(urls[1], 20)
    let target = 0
    const proxy = await useProxy(() => urls[target] as string)
    const database = await openDatabase(proxy.urlOf(urls[0]), 1)
    target = 1
    const leaving = new AbortController()
    const startedAt = performance.now()
    const refused = expect(sleepFor(database.withSignal(leaving.signal), 5)).rejects.toThrow('gone')
    await until(() => isRunning(urls[0], 'sleep(5)'), 'it runs')
    leaving.abort(new Error('gone'))
    await refused
    expect(performance.now() - startedAt).toBeLessThan(4_000)
    expect(await isRunning(urls[0], 'sleep(5)')).toBe(true)
    expect(database.semaphore.inUse).toBe(1)
    await until(() => database.semaphore.inUse === 0, 'the permit is back')
    expect(await isRunning(urls[0], 'sleep(5)')).toBe(false)
    expect(performance.now() - startedAt).toBeGreaterThan(4_900)
    expect(bystanders.ended()).toBe(0)
  })
})

test('a session that is stopped before its server is known ends at once', async () => {
  const url = inject('serverUrl')
  const pool = createPool(url)
  onTestFinished(() => promisify(pool.end.bind(pool))())
  const session = await promisify<PoolConnection>(pool.getConnection.bind(pool))()
  session.on('error', () => {})
  const controller = new AbortController()
  const connection = new MysqlConnection(session, url, controller.signal)
  const sleeping = connection.executeQuery(CompiledQuery.raw('select sleep(30)'))
  controller.abort(new Error('gone'))
  await expect(sleeping).rejects.toThrow('gone')
  const startedAt = performance.now()
  await connection.release()
  expect(performance.now() - startedAt).toBeLessThan(5_000)
})

describe('idle connections whose server fell silent', () => {
  test('cost one request a moment, all of them together', async () => {
    const server = inject('serverUrl')
    const proxy = await useProxy(() => server)
    const database = await openDatabase(proxy.urlOf(server), 5)
    const db = database.withSignal()
    await Promise.all([1, 2, 3, 4, 5].map(() => sleepFor(db, 0.1)))
    proxy.silence()
    vi.useFakeTimers({ toFake: ['Date'] })
    onTestFinished(() => void vi.useRealTimers())
    vi.setSystemTime(Date.now() + 3_000)
    const setTimeouts = vi.spyOn(globalThis, 'setTimeout')
    const startedAt = performance.now()
    for (let request = 0; request < 6; request++) await sleepFor(db, 0)
    expect(performance.now() - startedAt).toBeLessThan(5_000)
    expect(setTimeouts.mock.calls.filter(([, ms]) => ms === PING_TIMEOUT_MS)).toHaveLength(1)
    setTimeouts.mockRestore()
  })

  test('are used again without a new connection where it answers', async () => {
    const database = await openDatabase(inject('serverUrl'), 1)
    const id = async () =>
      (await sql`select connection_id() as id`.execute(database.withSignal())).rows[0]
    const before = await id()
    vi.useFakeTimers({ toFake: ['Date'] })
    onTestFinished(() => void vi.useRealTimers())
    vi.setSystemTime(Date.now() + 30_000)
    expect(await id()).toEqual(before)
  })
})

/** The URLs of two servers with one account and one database by name. */
async function openTwoServers() {
  const servers = [await useOwnServer(), await useOwnServer()]
  const urls = servers.map(
    ({ url }) => Object.assign(new URL(url), { password: 'shared' }).href,
  ) as [string, string]
  for (const { url } of servers) {
    const administrator = await createConnection({ uri: url })
    await administrator.query(`alter user 'offloop'@'%' identified by 'shared'`)
    await administrator.end()
  }
  return urls
}
