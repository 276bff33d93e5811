import { randomUUID } from 'node:crypto'
import { CamelCasePlugin, type Compilable, sql } from 'kysely'
import { describe, expect, test } from 'vitest'
import type { Db } from '../../src/db/database.ts'
import { inPieces, prepared, preparedWrite } from '../../src/db/prepared.ts'
import { transaction } from '../../src/db/transaction.ts'
import { useDatabase } from '../support/database.ts'

describe('a prepared query', () => {
  test('is built once and bound anew each time, in a transaction too', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    await db
      .insertInto('item')
      .values(['a', 'b', 'c'].map((name) => ({ name, price: '1.00', stock: 1 })))
      .execute()
    let built = 0
    const namesAfter = prepared('items.after', (db, id: number, limit: number) => {
      built++
      return db.selectFrom('item').select('name').where('id', '>', id).orderBy('id').limit(limit)
    })
    expect(await namesAfter(db, 0, 2)).toEqual([{ name: 'a' }, { name: 'b' }])
    expect(await namesAfter(db, 1, 5)).toEqual([{ name: 'b' }, { name: 'c' }])
    expect(await transaction(db, (trx) => namesAfter(trx, 2, 1))).toEqual([{ name: 'c' }])
    expect(built).toBe(1)
  })

  test.each([
    ['different', 1, 2],
    ['equal', 1, 1],
  ])(
    'refuses to be built when its parameters would be bound to the wrong places, also where their values are %s',
    async (_, a, b) => {
      const { database } = await useDatabase()
      const swapped = prepared('items.swapped', (db, stock: number, id: number) =>
        db.selectFrom('item').select('name').where('id', '=', id).where('stock', '=', stock),
      )
      await expect(swapped(database.withSignal(), a, b)).rejects.toThrow(
        'must bind each parameter once, in order',
      )
    },
  )

  test.each<[string, (db: Db, stock: number) => Compilable<{ name: string }>]>([
    [
      'a parameter twice',
      (db, stock) => names(db).where('id', '=', stock).where('stock', '=', stock),
    ],
    [
      'a constant of its own',
      (db, stock) => names(db).where('id', '=', 1).where('stock', '=', stock),
    ],
    ['none', (db) => names(db)],
    ['what it made of a parameter', (db, stock) => names(db).where('stock', '=', stock + 1)],
    [
      'what it chose by a parameter',
      (db, stock) => names(db).where('stock', '=', stock > 1 ? stock : 5),
    ],
    ['a text with a parameter in it', (db, stock) => names(db).where('name', '=', `Lamp ${stock}`)],
  ])('refuses to bind %s', async (_, build) => {
    const { database } = await useDatabase()
    await expect(prepared('items.refused', build)(database.withSignal(), 1)).rejects.toThrow(
      'A prepared query must bind',
    )
  })

  test('writes, and says what it wrote', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const insert = preparedWrite('items.insert', (db, name: string, price: string, stock: number) =>
      db.insertInto('item').values({ name, price, stock }),
    )
    expect(await insert(db, 'Lamp', '1.00', 1)).toMatchObject({ insertId: 1n, numAffectedRows: 1n })
    expect(await insert(db, 'Chair', '2.00', 2)).toMatchObject({
      insertId: 2n,
      numAffectedRows: 1n,
    })
    expect(await db.selectFrom('item').select(['name', 'price', 'stock']).execute()).toEqual([
      { name: 'Lamp', price: '1.00', stock: 1 },
      { name: 'Chair', price: '2.00', stock: 2 },
    ])
  })

  test('goes through the plugins of its handle, and through those only', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    await db.insertInto('item').values({ name: 'Lamp', price: '1.00', stock: 1 }).execute()
    const createdById = prepared('items.created', (db, id: number) =>
      db.selectFrom('item').select('created_at').where('id', '=', id),
    )
    const [camel, plain] = [db.withPlugin(new CamelCasePlugin()), db]
    for (let round = 0; round < 2; round++) {
      expect(await createdById(camel, 1)).toEqual([{ createdAt: expect.any(Date) }])
      expect(await createdById(plain, 1)).toEqual([{ created_at: expect.any(Date) }])
    }
    expect(await transaction(camel, (trx) => createdById(trx, 1))).toEqual([
      { createdAt: expect.any(Date) },
    ])
  })
})

describe('a list in a statement', () => {
  test('may have 70 000 values, and finds the same rows', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    await db
      .insertInto('item')
      .values(
        Array.from({ length: 100 }, (_, index) => ({
          name: `Lamp ${index}`,
          price: '1.00',
          stock: 1,
        })),
      )
      .execute()
    const named = ['Lamp 3', 'Lamp 70', 'Lamp 99']
    const unknown = Array.from({ length: 70_000 }, () => randomUUID())
    const values = [
      named[0],
      named[2],
      ...unknown.slice(0, 35_000),
      named[1],
      ...unknown.slice(35_000),
      named[2],
    ].map(String)
    const rows = await inPieces(values, (piece) =>
      db.selectFrom('item').select('name').where('name', 'in', piece).execute(),
    )
    expect(rows.map(({ name }) => name).sort()).toEqual(named)
  })

  test('makes a statement for each power of two up to 4 096, not for each length', async () => {
    const lengths = new Set<number>()
    for (const length of [0, 1, 2, 3, 4, 5, 31, 100, 1_000, 3_000, 4_096, 4_097, 9_000, 70_000]) {
      const values = Array.from({ length }, (_, index) => index)
      const seen = await inPieces(values, async (piece) => {
        lengths.add(piece.length)
        return piece
      })
      expect([...new Set(seen)]).toEqual(values)
    }
    expect([...lengths].sort((a, b) => a - b)).toEqual([1, 2, 4, 8, 32, 128, 512, 1_024, 4_096])
  })
})

test('a connection keeps at most 200 prepared statements', async () => {
  const { database } = await useDatabase({ poolSize: 1 })
  const db = database.withSignal()
  const open = async () =>
    (await sql<{ Value: string }>`show session status like 'Com_stmt_prepare'`.execute(db)).rows[0]
      ?.Value
  const closed = async () =>
    (await sql<{ Value: string }>`show session status like 'Com_stmt_close'`.execute(db)).rows[0]
      ?.Value
  for (let index = 0; index < 250; index++) await sql`select ${sql.lit(index)} + ${1}`.execute(db)
  expect(Number(await open()) - Number(await closed())).toBe(200)
})

const names = (db: Db) => db.selectFrom('item').select('name')
