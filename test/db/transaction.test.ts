import { CompiledQuery } from 'kysely'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import type { Db } from '../../src/db/database.ts'
import { afterCommit, transaction } from '../../src/db/transaction.ts'
import { useDatabase } from '../support/database.ts'

const killMyself = CompiledQuery.raw('kill connection_id()')

const addOne = (db: Db, name: string) =>
  db
    .updateTable('item')
    .set((eb) => ({ stock: eb('stock', '+', 1) }))
    .where('name', '=', name)
    .execute()

const item = (name: string) => ({ name, price: '1.00', stock: 0 })

describe('a transaction', () => {
  test('keeps everything, or nothing when it throws', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    await transaction(db, (trx) => trx.insertInto('item').values(item('kept')).execute())
    const failing = transaction(db, async (trx) => {
      await trx.insertInto('item').values(item('dropped')).execute()
      throw new Error('changed my mind')
    })
    await expect(failing).rejects.toThrow('changed my mind')
    expect(await db.selectFrom('item').select('name').execute()).toEqual([{ name: 'kept' }])
  })

  test('that loses a deadlock is run again, and both are done in the end', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    await db
      .insertInto('item')
      .values([item('a'), item('b')])
      .execute()
    let runs = 0
    let locked = 0
    const bothHoldOne = Promise.withResolvers<void>()
    const addInOrder = ([first = '', second = '']: string[]) =>
      transaction(db, async (trx) => {
        runs++
        await addOne(trx, first)
        if (++locked === 2) bothHoldOne.resolve()
        await bothHoldOne.promise
        await addOne(trx, second)
      })
    await Promise.all([addInOrder(['a', 'b']), addInOrder(['b', 'a'])])
    expect(runs).toBe(3)
    expect(await db.selectFrom('item').select('stock').execute()).toEqual([
      { stock: 2 },
      { stock: 2 },
    ])
  })

  test('that loses three times gives up as overloaded, and leaves nothing behind', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    let runs = 0
    const losing = transaction(db, async (trx) => {
      runs++
      await trx.insertInto('item').values(item('never')).execute()
      throw Object.assign(new Error('Deadlock found'), { errno: 1213 })
    })
    await expect(losing).rejects.toMatchObject({ code: 'overloaded' })
    expect(runs).toBe(3)
    expect(await db.selectFrom('item').selectAll().execute()).toEqual([])
  })

  test('is not run again for any other error', async () => {
    const { database } = await useDatabase()
    let runs = 0
    const failing = transaction(database.withSignal(), async () => {
      runs++
      throw new Error('no')
    })
    await expect(failing).rejects.toThrow('no')
    expect(runs).toBe(1)
  })

  test('does not reach the next borrower of its connection, even when its session dies', async () => {
    const { database } = await useDatabase({ poolSize: 1 })
    const db = database.withSignal()
    const dying = transaction(db, async (trx) => {
      await trx.insertInto('item').values(item('lost')).execute()
      await trx.executeQuery(killMyself).catch(() => {})
      throw new Error('dead')
    })
    await expect(dying).rejects.toThrow('dead')
    expect(await db.selectFrom('item').selectAll().execute()).toEqual([])
  })
})

describe('what is to be done after the commit', () => {
  test('is done once the row can be seen, and once for a transaction that ran twice', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const committed = Promise.withResolvers<string[]>()
    const told: number[] = []
    let runs = 0
    await transaction(db, async (trx) => {
      await trx.insertInto('item').values(item('seen')).execute()
      const run = ++runs
      afterCommit(trx, () => {
        told.push(run)
        const names = db.selectFrom('item').select('name').execute()
        committed.resolve(names.then((rows) => rows.map(({ name }) => name)))
      })
      if (run === 1) throw Object.assign(new Error('Deadlock found'), { errno: 1213 })
    })
    expect(told).toEqual([2])
    expect(await committed.promise).toEqual(['seen'])
  })

  test('is not done when the transaction is rolled back', async () => {
    const { database } = await useDatabase()
    let told = false
    const failing = transaction(database.withSignal(), async (trx) => {
      afterCommit(trx, () => {
        told = true
      })
      throw new Error('no')
    })
    await expect(failing).rejects.toThrow('no')
    expect(told).toBe(false)
  })

  test('that throws leaves the change committed, and the others are done', async () => {
    const { database } = await useDatabase()
    const db = database.withSignal()
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    onTestFinished(() => warn.mockRestore())
    const failure = new Error('The listener failed')
    let told = false
    const inserting = transaction(db, async (trx) => {
      afterCommit(trx, () => {
        throw failure
      })
      afterCommit(trx, () => {
        told = true
      })
      await trx.insertInto('item').values(item('kept')).execute()
      return 'done'
    })
    expect(await inserting).toBe('done')
    expect(told).toBe(true)
    expect(warn).toHaveBeenCalledExactlyOnceWith(failure)
    expect(await db.selectFrom('item').select('name').execute()).toEqual([{ name: 'kept' }])
  })

  test('needs a transaction that knows of it', async () => {
    const { database } = await useDatabase()
    const foreign = database
      .withSignal()
      .transaction()
      .execute(async (trx) => afterCommit(trx, () => {}))
    await expect(foreign).rejects.toThrow('Begin the transaction with transaction()')
  })
})
