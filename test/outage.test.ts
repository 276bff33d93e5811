import { sql } from 'kysely'
import { createConnection } from 'mysql2/promise'
import { describe, expect, onTestFinished, test } from 'vitest'
import { Database } from '../src/db/database.ts'
import { migrateUp } from '../src/db/migrate.ts'
import { openFixture, useFixture } from './support/fixture/features.ts'
import { createItemTable } from './support/fixture/item-table.ts'
import { addOperator } from './support/operator.ts'
import { canOwnServer, useOwnServer } from './support/own-server.ts'
import { metric, request } from './support/service.ts'
import { until } from './support/until.ts'

const ENV = {
  NODE_ENV: 'test',
  LOG_LEVEL: 'silent',
  PORT: '0',
  OPS_PORT: '0',
  COMPUTE_THREADS: '1',
}

/** Without `Retry-After`. */
const outcomeUnknown = {
  code: 'unavailable',
  message: expect.stringContaining('may have been saved or not'),
  headers: expect.not.objectContaining({ 'Retry-After': expect.anything() }),
}

describe.runIf(canOwnServer)('a database killed with -9 under load', () => {
  test('gives 503s, not a crash, and the service is well again after its return', async () => {
    const server = await useOwnServer()
    await prepareDatabase(server.url)
    const service = await openFixture({ ...ENV, DATABASE_URL: server.url })
    onTestFinished(() => service.stop())
    const codes = new Map<string, number>()
    const load = startLoad(`${service.url}/v1/items/1`, codes)

    await until(() => (codes.get('200') ?? 0) > 50, 'it answers')
    await server.send('SIGKILL')
    await until(() => (codes.get('503 unavailable') ?? 0) > 50, 'it says that it cannot')
    expect((await request(`${service.opsUrl}/health/ready`)).body).toMatchObject({
      status: 503,
      code: 'unavailable',
    })
    expect((await request(`${service.opsUrl}/health/live`)).status).toBe(200)
    await until(async () => (await readReady(service.opsUrl)) === '0', 'its metrics tell')

    await server.restart()
    await until(
      async () => (await request(`${service.opsUrl}/health/ready`)).status === 200,
      'it is ready',
    )
    await until(async () => (await readReady(service.opsUrl)) === '1', 'its metrics tell')
    await until(
      async () => (await request(`${service.url}/v1/items/1`)).status === 200,
      'it serves',
    )
    await load.stop()
    expect([...codes.keys()].sort()).toEqual(['200', '503 unavailable'])
  })

  test('whose answer to a commit is lost says that the outcome is unknown', async () => {
    const server = await useOwnServer()
    await prepareDatabase(server.url)
    await using database = await Database.open({ url: server.url, poolSize: 1 })
    const committing = database
      .withSignal()
      .transaction()
      .execute(async (trx) => {
        await trx.insertInto('item').values({ name: 'Maybe', price: '1.00', stock: 1 }).execute()
        await server.send('SIGKILL')
      })
    await expect(committing).rejects.toMatchObject(outcomeUnknown)
  })

  test.each([
    [
      'whose answer to a write outside of a transaction is lost says the same',
      'insert',
      outcomeUnknown,
    ],
    [
      'whose answer to a read is lost says that it may be sent again',
      'select',
      { code: 'unavailable', headers: { 'Retry-After': '1' } },
    ],
  ])('%s', async (_, verb, outcome) => {
    const server = await useOwnServer()
    await prepareDatabase(server.url)
    await using database = await Database.open({ url: server.url, poolSize: 1 })
    const insert = sql`insert into item (name, price, stock) select 'Maybe', 1, sleep(30)`
    const statement = (verb === 'insert' ? insert : sql`select sleep(30)`).execute(
      database.withSignal(),
    )
    const outcomeSeen = expect(statement).rejects.toMatchObject(outcome)
    await until(async () => (await listStatements(server.url)).includes('User sleep'), 'it runs')
    await server.send('SIGKILL')
    await outcomeSeen
  })
})

describe.runIf(canOwnServer)('a database that hangs', () => {
  test('costs each request its deadline, and is forgiven when it goes on', async () => {
    const server = await useOwnServer()
    await prepareDatabase(server.url)
    const service = await openFixture({
      ...ENV,
      DATABASE_URL: server.url,
      REQUEST_TIMEOUT_MS: '300',
    })
    onTestFinished(() => service.stop())
    const item = `${service.url}/v1/items/1`
    // On a busy machine the first requests may take longer than their deadline.
    await until(async () => (await request(item)).status === 200, 'it serves')
    await server.send('SIGSTOP')
    try {
      // Its threads stop one by one: the first request may still be served.
      await until(async () => (await request(item)).body.code === 'deadline_exceeded', 'it hangs')
      expect((await request(`${service.opsUrl}/health/ready`)).status).toBe(503)
    } finally {
      await server.send('SIGCONT')
    }
    await until(async () => (await request(item)).status === 200, 'it serves again')
  })

  test.each([
    ['commit', undefined, outcomeUnknown],
    ['rollback', new Error('The story failed'), { message: 'The story failed' }],
  ])(
    'is not waited for when a %s has no answer after the deadline',
    async (_, failure, outcome) => {
      const server = await useOwnServer()
      await prepareDatabase(server.url)
      await using database = await Database.open({ url: server.url, poolSize: 1 })
      const deadline = new AbortController()
      const ending = database
        .withSignal(deadline.signal)
        .transaction()
        .execute(async (trx) => {
          await trx.insertInto('item').values({ name: 'Maybe', price: '1.00', stock: 1 }).execute()
          await server.send('SIGSTOP')
          setTimeout(() => deadline.abort(), 500)
          if (failure) throw failure
        })
      try {
        await expect(ending).rejects.toMatchObject(outcome)
      } finally {
        await server.send('SIGCONT')
      }
    },
  )

  test('does not hold up the stop', async () => {
    const server = await useOwnServer()
    await prepareDatabase(server.url)
    const service = await openFixture({ ...ENV, DATABASE_URL: server.url })
    expect((await request(`${service.url}/v1/items/1`)).status).toBe(200)
    await server.send('SIGSTOP')
    await service.stop().finally(() => server.send('SIGCONT'))
  })
})

describe('a database that is merely busy', () => {
  test('leaves the service ready, and serves what has a connection when it goes on', async () => {
    const { url, opsUrl, database } = await useFixture({
      DATABASE_POOL_SIZE: '10',
      REQUEST_TIMEOUT_MS: '20000',
    })
    const db = database.withSignal()
    await db.insertInto('item').values({ name: 'Lamp', price: '1.00', stock: 0 }).execute()
    const patches = await db.transaction().execute(async (trx) => {
      await trx.selectFrom('item').select('id').forUpdate().execute()
      const waiting = Array.from({ length: 12 }, (_, stock) =>
        request(`${url}/v1/items/1`, 'PATCH', { stock }),
      )
      await until(
        async () => (await metric(opsUrl, 'database_pool_waiting')) >= 2,
        'the pool is used up',
      )
      for (let probe = 0; probe < 5; probe++)
        expect((await request(`${opsUrl}/health/ready`)).status).toBe(200)
      return waiting
    })
    const statuses = (await Promise.all(patches)).map(({ status }) => status)
    // On a busy machine two of them may have waited for too long.
    expect(statuses.filter((status) => status === 200).length).toBeGreaterThanOrEqual(10)
    expect(new Set(statuses).difference(new Set([200, 503])).size).toBe(0)
  })
})

describe.runIf(canOwnServer)('a server without room for another prepared statement', () => {
  test('is unavailable, and used again once there is room', async () => {
    const { url } = await useOwnServer()
    await using database = await Database.open({ url, poolSize: 1 })
    const read = () => sql`select ${1} as one`.execute(database.withSignal())
    const administrator = await createConnection({ uri: url })
    await administrator.query('set global max_prepared_stmt_count = 0')
    await expect(read()).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringContaining('no room'),
    })
    await administrator.query('set global max_prepared_stmt_count = default')
    await administrator.end()
    expect((await read()).rows).toHaveLength(1)
  })
})

describe.runIf(canOwnServer)('a server with the mode NO_BACKSLASH_ESCAPES', () => {
  test('is refused, because text cannot be escaped safely on it', async () => {
    const { url } = await useOwnServer()
    const administrator = await createConnection({ uri: url })
    await administrator.query(`set global sql_mode = 'NO_BACKSLASH_ESCAPES'`)
    await administrator.end()
    await expect(Database.open({ url, poolSize: 1 })).rejects.toMatchObject({
      message: expect.stringContaining('NO_BACKSLASH_ESCAPES'),
    })
  })
})

/** With an item to read. */
async function prepareDatabase(url: string) {
  await using database = await Database.open({ url, poolSize: 1 })
  const db = database.withSignal()
  await migrateUp(db)
  await createItemTable(db)
  await addOperator(db)
  await db.insertInto('item').values({ name: 'Lamp', price: '1.00', stock: 1 }).execute()
}

/** Twenty clients that ask on and on, and count what they are told. */
function startLoad(url: string, codes: Map<string, number>) {
  let stopped = false
  const clients = Array.from({ length: 20 }, async () => {
    while (!stopped) {
      const { status, body } = await request(url)
      const code = body.code ? `${status} ${body.code}` : String(status)
      codes.set(code, (codes.get(code) ?? 0) + 1)
    }
  })
  return {
    async stop() {
      stopped = true
      await Promise.all(clients)
    },
  }
}

/** What the server's sessions run, in one text. */
async function listStatements(url: string): Promise<string> {
  const connection = await createConnection({ uri: url })
  const [rows] = await connection.query('show processlist')
  await connection.end()
  return JSON.stringify((rows as { Id: number }[]).filter(({ Id }) => Id !== connection.threadId))
}

/** Its value in `/metrics`. */
async function readReady(opsUrl?: string) {
  const text = await (await fetch(`${opsUrl}/metrics`)).text()
  return text.match(/^service_ready (.+)$/m)?.[1]
}
