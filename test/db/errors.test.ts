import { sql } from 'kysely'
import { describe, expect, test } from 'vitest'
import type { Db } from '../../src/db/database.ts'
import { isDuplicateKey, isUnavailable, translate } from '../../src/db/errors.ts'
import { transaction } from '../../src/db/transaction.ts'
import type { AppError } from '../../src/errors.ts'
import { onServer, useDatabase } from '../support/database.ts'
import { until } from '../support/until.ts'

const add = (db: Db, name: string) =>
  db.insertInto('item').values({ name, price: '1.00', stock: 1 }).execute()

async function failure(promise: Promise<unknown>) {
  const [result] = await Promise.allSettled([promise])
  if (result.status === 'fulfilled') throw new Error('It did not fail')
  return result.reason
}

describe('an error of the server is told by its number, whatever words it quotes:', () => {
  test.each([
    'Open lamp',
    'Enclosed lamp',
    'is closed',
    "x' for key 'PRIMARY",
    "'",
    '\u{1F4A1}'.repeat(200),
  ])('a duplicate of %s is a duplicate', async (name) => {
    const { database } = await useDatabase()
    await add(database.withSignal(), name)
    const error = await failure(add(database.withSignal(), name))
    expect(error.errno).toBe(1062)
    expect([isDuplicateKey(error, 'item_name'), isDuplicateKey(error, 'PRIMARY')]).toEqual([
      true,
      false,
    ])
  })

  test('a value that reads like another key does not pass for it', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    await sql`create table spoof (id varchar(100) primary key)`.execute(db)
    const insert = () => sql`insert into spoof values (${"x' for key 'item_name"})`.execute(db)
    await insert()
    const error = await failure(insert())
    expect(error.errno).toBe(1062)
    expect(isDuplicateKey(error, 'item_name')).toBe(false)
  })

  test('a duplicate in a transaction does not cost the connection', async () => {
    const { database } = await useDatabase({ poolSize: 1 })
    const db = database.withSignal()
    const id = async () =>
      (await sql<{ id: number }>`select connection_id() as id`.execute(db)).rows[0]?.id
    await add(db, 'Enclosed lamp')
    const before = await id()
    expect((await failure(transaction(db, (trx) => add(trx, 'Enclosed lamp')))).errno).toBe(1062)
    expect(await id()).toBe(before)
  })

  test('a table whose name says closed is unknown', async () => {
    const { database } = await useDatabase()
    const error = await failure(sql`select 1 from nosuch_closed`.execute(database.withSignal()))
    expect([error.errno, isUnavailable(error)]).toEqual([1146, false])
  })
})

describe('what the server reports becomes what a client can act on:', () => {
  const serverError = (errno: number, message = 'closed') =>
    Object.assign(new Error(message), { errno, code: 'ER_SOMETHING' })
  test.each([
    [1040, 'unavailable', '1'],
    [1226, 'unavailable', '1'],
    [1317, 'unavailable', '1'],
    [1461, 'unavailable', '1'],
    [1969, 'deadline_exceeded', undefined],
    [3024, 'deadline_exceeded', undefined],
  ])('error %i is %s', (errno, code, retryAfter) => {
    const cause = serverError(errno)
    const error = translate(cause) as AppError
    expect(error).toMatchObject({ code, cause })
    expect(error.headers['Retry-After']).toBe(retryAfter)
  })

  test('others stay what they are', () => {
    const error = serverError(1644, 'The account is closed')
    expect(translate(error)).toBe(error)
  })

  test('a connection that the server does not let in is unavailable, whatever its reason', async () => {
    const { database, url } = await useDatabase({ poolSize: 2 })
    const name = new URL(url).pathname.slice(1)
    await onServer(`drop database \`${name}\``)
    const both = [1, 2].map(() => sql`select sleep(0.1)`.execute(database.withSignal()))
    const [first, second] = await Promise.allSettled(both)
    await onServer(`create database \`${name}\``)
    expect([first, second].filter((result) => result?.status === 'rejected')).toMatchObject([
      { reason: { code: 'unavailable' } },
    ])
  })

  test('a statement that somebody ended is unavailable, and the connection goes on', async () => {
    const { database } = await useDatabase({ poolSize: 1 })
    const db = database.withSignal()
    const { rows } = await sql<{ id: number }>`select connection_id() as id`.execute(db)
    const interrupted = failure(
      sql`select count(*) from information_schema.columns a, information_schema.columns b`.execute(
        db,
      ),
    )
    const runs = async () =>
      JSON.stringify(await onServer('show processlist')).includes('information_schema.columns b')
    await until(runs, 'it runs')
    await onServer(`kill query ${rows[0]?.id}`)
    expect(await interrupted).toMatchObject({ code: 'unavailable', cause: { errno: 1317 } })
    expect((await sql`select connection_id() as id`.execute(db)).rows).toEqual(rows)
  })
})
