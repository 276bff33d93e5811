import { CamelCasePlugin, type Compilable } from 'kysely'
import { describe, expect, test } from 'vitest'
import type { Db } from '../../src/db/database.ts'
import { prepared, preparedWrite } from '../../src/db/prepared.ts'
import { transaction } from '../../src/db/transaction.ts'
import { useDatabase } from '../support/database.ts'

describe('a prepared query', () => {
  test('is built once and bound anew each time, in a transaction too', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    await db
      .insertInto('product')
      .values(['a', 'b', 'c'].map((name) => ({ name, price: '1.00', stock: 1 })))
      .execute()
    let built = 0
    const namesAfter = prepared((db, id: number, limit: number) => {
      built++
      return db.selectFrom('product').select('name').where('id', '>', id).orderBy('id').limit(limit)
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
      const swapped = prepared((db, stock: number, id: number) =>
        db.selectFrom('product').select('name').where('id', '=', id).where('stock', '=', stock),
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
    await expect(prepared(build)(database.withSignal(), 1)).rejects.toThrow(
      'A prepared query must bind',
    )
  })

  test('writes, and says what it wrote', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const insert = preparedWrite((db, name: string, price: string, stock: number) =>
      db.insertInto('product').values({ name, price, stock }),
    )
    expect(await insert(db, 'Lamp', '1.00', 1)).toMatchObject({ insertId: 1n, numAffectedRows: 1n })
    expect(await insert(db, 'Chair', '2.00', 2)).toMatchObject({
      insertId: 2n,
      numAffectedRows: 1n,
    })
    expect(await db.selectFrom('product').select(['name', 'price', 'stock']).execute()).toEqual([
      { name: 'Lamp', price: '1.00', stock: 1 },
      { name: 'Chair', price: '2.00', stock: 2 },
    ])
  })

  test('goes through the plugins of its handle, and through those only', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    await db.insertInto('product').values({ name: 'Lamp', price: '1.00', stock: 1 }).execute()
    const createdById = prepared((db, id: number) =>
      db.selectFrom('product').select('created_at').where('id', '=', id),
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

const names = (db: Db) => db.selectFrom('product').select('name')
