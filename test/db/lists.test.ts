import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import { describe, expect, test } from 'vitest'
import { inPieces } from '../../src/db/lists.ts'
import { useDatabase } from '../support/database.ts'

describe('a list in a statement', () => {
  test('may have 70 000 values, and finds the same rows', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    await db
      .insertInto('product')
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
      db.selectFrom('product').select('name').where('name', 'in', piece).execute(),
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
