import { CompiledQuery, sql } from 'kysely'
import { describe, expect, test } from 'vitest'
import { Database, type Db } from '../../src/db/database.ts'
import { transaction } from '../../src/db/transaction.ts'
import { onServer, useDatabase } from '../support/database.ts'
import { until } from '../support/until.ts'

const sleepFor = (db: Db, seconds: number, marker: string) =>
  sql<{
    done: number
  }>`select sleep(${sql.lit(seconds)}) as done, ${sql.lit(marker)} as marker`.execute(db)

/** Whether a statement with this text runs on the server. */
const isRunning = async (marker: string) => {
  const list = await onServer('show full processlist')
  return list.some(({ Info, info = Info }) => String(info).includes(`'${marker}' as marker`))
}

describe('a statement whose signal aborts', () => {
  test('is killed on the server, and its caller told why at once', async () => {
    const { database } = await useDatabase()
    const controller = new AbortController()
    const sleeping = sleepFor(database.withSignal(controller.signal), 600, 'killed-1')
    await until(() => isRunning('killed-1'), 'the statement runs')
    controller.abort(new Error('gone'))
    await expect(sleeping).rejects.toThrow('gone')
    await until(
      async () => !(await isRunning('killed-1')),
      'the statement is gone, and not only when its connection is given up, after 10 s',
      8_000,
    )
  })

  test('that commits itself is told as done only where it is', async () => {
    const { database } = await useDatabase()
    const outcomes = new Set<string>()
    for (let round = 0; round < 60; round++) {
      const controller = new AbortController()
      const name = `Lamp ${round}`
      const insert = database
        .withSignal(controller.signal)
        .insertInto('item')
        .values({ name, price: '1.00', stock: 1 })
      const inserting = insert.execute().then(
        () => 'done',
        ({ message }) => message,
      )
      // From before the statement is sent until after its answer is there.
      for (let turn = 0; turn < round % 12; turn++) await new Promise(setImmediate)
      controller.abort(new Error('gone'))
      const outcome = await inserting
      outcomes.add(outcome)
      const rows = await database
        .withSignal()
        .selectFrom('item')
        .select('id')
        .where('name', '=', name)
        .execute()
      // The other way round is not certain: a session may be killed between its commit and the
      // answer.
      if (outcome === 'done') expect([round, rows.length]).toEqual([round, 1])
    }
    expect([...outcomes].sort()).toEqual(['done', 'gone'])
  })

  test('that commits itself and waits for a lock is ended, and changes nothing', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    await db.insertInto('item').values({ name: 'Lamp', price: '1.00', stock: 1 }).execute()
    const controller = new AbortController()
    await transaction(db, async (trx) => {
      await trx.selectFrom('item').select('id').where('name', '=', 'Lamp').forUpdate().execute()
      const changing = database
        .withSignal(controller.signal)
        .updateTable('item')
        .set({ stock: 2 })
        .execute()
      await until(() => database.semaphore.inUse === 2, 'the update has a connection')
      controller.abort(new Error('gone'))
      await expect(changing).rejects.toThrow('gone')
    })
    expect(await db.selectFrom('item').select('stock').execute()).toEqual([{ stock: 1 }])
  })

  test('never starts when the signal has aborted before', async () => {
    const { database } = await useDatabase()
    await expect(
      database
        .withSignal(AbortSignal.abort(new Error('gone')))
        .selectFrom('item')
        .selectAll()
        .execute(),
    ).rejects.toThrow('gone')
  })

  test('gives back its locks and its transaction', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    await db.insertInto('item').values({ name: 'Lamp', price: '1.00', stock: 1 }).execute()
    const controller = new AbortController()
    const held = database
      .withSignal(controller.signal)
      .transaction()
      .execute(async (trx) => {
        await trx.updateTable('item').set({ stock: 2 }).execute()
        await sleepFor(trx, 30, 'killed-2')
      })
    await until(() => isRunning('killed-2'), 'the transaction waits')
    controller.abort(new Error('gone'))
    await expect(held).rejects.toThrow('gone')
    await db.updateTable('item').set({ price: '2.00' }).execute()
    expect(await db.selectFrom('item').select(['price', 'stock']).execute()).toEqual([
      { price: '2.00', stock: 1 },
    ])
  })

  test('leaves the pool as large as it was', async () => {
    const { database } = await useDatabase({ poolSize: 2 })
    for (let round = 0; round < 5; round++) {
      const controller = new AbortController()
      const both = [1, 2].map(() =>
        sleepFor(database.withSignal(controller.signal), 30, `killed-3-${round}`).catch(() => {}),
      )
      await until(() => isRunning(`killed-3-${round}`), 'they run')
      controller.abort(new Error('gone'))
      await Promise.all(both)
    }
    await until(() => database.semaphore.inUse === 0, 'all permits are back')
    await Promise.all([1, 2, 3, 4].map(() => sleepFor(database.withSignal(), 0, 'after')))
  })

  test('kills no other statement, however close the abort comes to its end', async () => {
    const { database } = await useDatabase({ poolSize: 2 })
    const bystanders = async () => {
      for (let round = 0; round < 30; round++)
        await sleepFor(database.withSignal(), 0.01, 'bystander')
    }
    const others = bystanders()
    for (let round = 0; round < 30; round++) {
      const controller = new AbortController()
      const statement = sleepFor(database.withSignal(controller.signal), 0.001, 'victim').catch(
        () => {},
      )
      setTimeout(() => controller.abort(new Error('gone')), Math.random() * 4)
      await statement
    }
    await others
  })
})

test('a statement that cannot be sent leaves no trace on its signal', async () => {
  const { database } = await useDatabase({ poolSize: 1 })
  const controller = new AbortController()
  const unbindable = CompiledQuery.raw('select ?', [() => 'no SQL value'])
  await expect(database.withSignal(controller.signal).executeQuery(unbindable)).rejects.toThrow(
    /function/,
  )
  const next = sleepFor(database.withSignal(), 0.1, 'unharmed')
  controller.abort()
  expect((await next).rows).toHaveLength(1)
})

describe('when all connections are busy', () => {
  test('hundreds wait, and all are served', async () => {
    const { database } = await useDatabase({ poolSize: 2 })
    const busy = Array.from({ length: 500 }, () => sleepFor(database.withSignal(), 0.001, 'busy'))
    await until(() => database.semaphore.waiting > 400, 'they wait')
    expect((await Promise.all(busy)).map(({ rows }) => rows.length)).toEqual(new Array(500).fill(1))
  })

  test('nobody waits for more than 2 s', async () => {
    const { database } = await useDatabase({ poolSize: 1 })
    const controller = new AbortController()
    const busy = sleepFor(database.withSignal(controller.signal), 30, 'busy-2').catch(() => {})
    const startedAt = performance.now()
    await expect(sleepFor(database.withSignal(), 0, 'late')).rejects.toMatchObject({
      code: 'overloaded',
    })
    expect(performance.now() - startedAt).toBeGreaterThan(1_900)
    controller.abort()
    await busy
  })

  test('its backlog begins nothing more, and goes on when a caller leaves the queue', async () => {
    const { database } = await useDatabase({ poolSize: 1 })
    for (let caller = 0; caller < 5; caller++) database.semaphore.acquire()?.catch(() => {})
    const ends: string[] = []
    database.backlog.add({ admit: () => ends.push('admitted'), refuse: () => ends.push('refused') })
    expect([database.waiting, ends]).toEqual([5, []])
    database.semaphore.release()
    await until(() => ends.length > 0, 'it is admitted')
    expect([database.waiting, ends]).toEqual([3, ['admitted']])
  })

  test('a ping and a reserved handle do not wait behind requests', async () => {
    const { database } = await useDatabase({ poolSize: 1 })
    const controller = new AbortController()
    const busy = Array.from({ length: 100 }, () =>
      sleepFor(database.withSignal(controller.signal), 30, 'busy-3').catch(() => {}),
    )
    await until(() => database.semaphore.waiting === 99, 'they wait')
    await database.ping(AbortSignal.timeout(1_000))
    const reserved = database.withSignal(AbortSignal.timeout(1_000), { reserved: true })
    expect(
      await transaction(reserved, (trx) => trx.selectFrom('item').select('id').execute()),
    ).toEqual([])
    expect([database.semaphore.inUse, database.semaphore.waiting]).toEqual([1, 99])
    controller.abort()
    await Promise.all(busy)
    await until(() => database.semaphore.inUse === 0, 'the permit is back')
  })
})

test('connections that are idle for a moment are kept', async () => {
  const { database } = await useDatabase({ poolSize: 8 })
  const ids = async () => {
    const connections = Array.from(
      { length: 8 },
      () => sql<{ id: number }>`select connection_id() as id, sleep(0.05)`,
    )
    const results = await Promise.all(
      connections.map((query) => query.execute(database.withSignal())),
    )
    return results.map(({ rows }) => rows[0]?.id).sort()
  }
  const before = await ids()
  expect(new Set(before).size).toBe(8)
  // Above the interval in which mysql2 looks for connections to close.
  const until = performance.now() + 2_500
  while (performance.now() < until) await sleepFor(database.withSignal(), 0.1, 'meanwhile')
  expect(await ids()).toEqual(before)
})

describe('a session', () => {
  test('speaks UTC and refuses values that do not fit, whatever the server prefers', async () => {
    const { database } = await useDatabase()
    const { rows } = await sql<{
      zone: string
      mode: string
    }>`select @@time_zone as zone, @@sql_mode as mode`.execute(database.withSignal())
    expect(rows[0]?.zone).toBe('+00:00')
    expect(rows[0]?.mode).toContain('STRICT_ALL_TABLES')
    const tooLong = { name: 'x'.repeat(201), price: '1.00', stock: 1 }
    await expect(
      database.withSignal().insertInto('item').values(tooLong).execute(),
    ).rejects.toThrow(/too long/i)
  })

  test('gives integers that a number cannot hold as text, exactly', async () => {
    const { database } = await useDatabase()
    const { rows } = await sql<{
      big: string
    }>`select cast(9007199254740993 as unsigned) as big`.execute(database.withSignal())
    expect(rows[0]?.big).toBe('9007199254740993')
  })

  test('takes an object for a value, never for SQL', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    await db.insertInto('item').values({ name: 'Lamp', price: '1.00', stock: 1 }).execute()
    const injected = { name: 1 } as unknown as string
    expect(await db.selectFrom('item').select('id').where('name', '=', injected).execute()).toEqual(
      [],
    )
  })

  test('runs one statement at a time and reads no files', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    await expect(db.executeQuery(CompiledQuery.raw('select 1; select 2'))).rejects.toThrow(
      /syntax/i,
    )
    await expect(
      db.executeQuery(CompiledQuery.raw(`load data local infile '/etc/hosts' into table item`)),
    ).rejects.toThrow()
  })
})

describe('a text', () => {
  test('with half of a surrogate pair is refused, and never stored as another one', async () => {
    const { database } = await useDatabase({ poolSize: 1 })
    const db = database.withSignal()
    const add = (name: string) =>
      db.insertInto('item').values({ name, price: '1.00', stock: 1 }).execute()
    for (const name of ['\ud800', 'a\udc00b'])
      await expect(add(name)).rejects.toMatchObject({ code: 'invalid' })
    await add('\u{1F4A1}')
    expect(await db.selectFrom('item').select('name').execute()).toEqual([{ name: '\u{1F4A1}' }])
  })

  test('compares by the collation of the tables, so that a comparison is a constant for the planner', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const { rows } = await sql<{ session: string; table: string }>`
      select @@collation_connection as session, table_collation as ${sql.ref('table')}
      from information_schema.tables where table_schema = database() and table_name = 'job'
    `.execute(db)
    expect(rows[0]?.session).toBe(rows[0]?.table)
  })
})

describe('opening', () => {
  test.each([
    [
      'a server that is not there',
      'mysql://root@127.0.0.1:1/x',
      /Cannot use the database 127\.0\.0\.1:1\/x: .*ECONNREFUSED/,
    ],
    [
      'a host that does not exist',
      'mysql://root@nowhere.invalid/x',
      /Cannot use the database nowhere\.invalid\/x: /,
    ],
  ])('%s says so in one line', async (_, url, message) => {
    await expect(Database.open({ url, poolSize: 1 })).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(message),
    })
  })

  test('with a wrong password says so, and does not print it', async () => {
    const { url } = await useDatabase()
    const wrong = new URL(url)
    wrong.password = 'hunter2'
    const error = await Database.open({ url: wrong.href, poolSize: 1 }).catch((error) => error)
    expect(error.message).toMatch(/Access denied/)
    expect(error.message).not.toContain('hunter2')
  })
})
