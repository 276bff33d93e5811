import { describe, expect, test } from 'vitest'
import { prepared } from '../../src/db/prepared.ts'
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

  test('refuses to be built when its parameters would be bound to the wrong places', async () => {
    const { database } = await useDatabase()
    const swapped = prepared((db, stock: number, id: number) =>
      db.selectFrom('product').select('name').where('id', '=', id).where('stock', '=', stock),
    )
    await expect(swapped(database.withSignal(), 1, 2)).rejects.toThrow('must bind each parameter once, in order')
  })
})
