import { randomBytes } from 'node:crypto'
import { createConnection } from 'mysql2/promise'
import { inject, onTestFinished } from 'vitest'
import { Database } from '../../src/db/database.ts'
import { migrateUp } from '../../src/db/migrate.ts'
import { createItemTable } from './fixture/item-table.ts'
import { addOperator } from './operator.ts'

/**
 * An empty database of the test's own, with its URL; dropped at the end of the test or, from
 * `beforeAll`, by hand.
 */
export async function createEmptyDatabase() {
  const name = `offloop_test_${randomBytes(6).toString('hex')}`
  await onServer(`create database \`${name}\` character set utf8mb4`)
  const url = new URL(inject('serverUrl'))
  url.pathname = `/${name}`
  return {
    url: url.href,
    async drop() {
      await onServer(`drop database \`${name}\``)
    },
  }
}

/** A migrated database of the test's own with the fixture's table and an operator, and an open pool on it. */
export async function createDatabase({ poolSize = 5 }: { poolSize?: number } = {}) {
  const { url, drop } = await createEmptyDatabase()
  const database = await Database.open({ url, poolSize })
  await migrateUp(database.withSignal())
  await createItemTable(database.withSignal())
  await addOperator(database.withSignal())
  return {
    url,
    database,
    async close() {
      await database[Symbol.asyncDispose]()
      await drop()
    },
  }
}

/** The same, closed when the running test ends. */
export async function useDatabase(options?: { poolSize?: number }) {
  const { close, ...rest } = await createDatabase(options)
  onTestFinished(close)
  return rest
}

/** Runs one statement as the server's administrator, outside of any pool. */
export async function onServer(sql: string): Promise<Record<string, unknown>[]> {
  const connection = await createConnection({ uri: inject('serverUrl') })
  try {
    const [rows] = await connection.query(sql)
    return rows as Record<string, unknown>[]
  } finally {
    await connection.end()
  }
}
