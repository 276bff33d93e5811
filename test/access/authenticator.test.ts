import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { createAccount } from '../../src/access/accounts.ts'
import { Authenticator } from '../../src/access/authenticator.ts'
import { createCredential, deleteExpired, listCredentials } from '../../src/access/credentials.ts'
import { MysqlConnection } from '../../src/db/connection.ts'
import type { Db } from '../../src/db/database.ts'
import { ROLES } from '../../src/roles.ts'
import { useDatabase } from '../support/database.ts'
import { until } from '../support/until.ts'

let db: Db
let accountId: number
let authenticator: Authenticator

beforeEach(async () => {
  const { database } = await useDatabase()
  db = database.withSignal()
  accountId = await createAccount(db, {
    email: 'member@example.com',
    password_hash: null,
    role: 'member',
  })
  authenticator = new Authenticator(db)
})
afterEach(() => void vi.useRealTimers())

const create = (more: Partial<Parameters<typeof createCredential>[1]> = {}) =>
  createCredential(db, { kind: 'session', accountId, name: 'test', ...more })

const change = (id: string, changes: { used_at?: Date; expires_at?: Date; created_at?: Date }) =>
  db.updateTable('credential').set(changes).where('id', '=', id).execute()

const ago = (ms: number) => new Date(Date.now() - ms)
const MINUTE_MS = 60_000
const DAY_MS = 86_400_000

describe('a token', () => {
  test('of a session is all that the role of its account may do', async () => {
    const { id, token } = await create()
    expect(await authenticator.identify(token)).toMatchObject({
      id: `account:${accountId}`,
      scopes: new Set(ROLES.member),
      credential: { kind: 'session', id },
    })
  })

  test('of a key is its scopes, as far as the role still has them', async () => {
    const { token } = await create({ kind: 'key', scopes: ['account', 'operate'] })
    expect(await authenticator.identify(token)).toMatchObject({ scopes: new Set(['account']) })
  })

  test('is stored as a hash only', async () => {
    const { token } = await create()
    const rows = JSON.stringify(await db.selectFrom('credential').selectAll().execute())
    expect(rows).not.toContain(token.slice(4))
  })

  test.each([
    '',
    'x',
    'ofs_short',
    `ofs_${'a'.repeat(43)}`,
    `ofl_${'a'.repeat(43)}`,
    `ofs_${'%'.repeat(43)}`,
  ])('that nobody has, "%s", is nobody', async (token) =>
    expect(await authenticator.identify(token)).toBeUndefined(),
  )

  test('that has expired is nobody', async () => {
    const { id, token } = await create()
    await change(id, { expires_at: ago(1) })
    expect(await authenticator.identify(token)).toBeUndefined()
  })
})

describe('a session', () => {
  test('that is used lives for another week, and its use is noted to the minute', async () => {
    const { id, token } = await create()
    await change(id, { used_at: ago(2 * MINUTE_MS), expires_at: ago(-DAY_MS) })
    await authenticator.identify(token)
    const [session] = await listCredentials(db, accountId, 'session')
    expect(session?.usedAt.getTime()).toBeGreaterThan(Date.now() - MINUTE_MS)
    expect(session?.expiresAt?.getTime()).toBeGreaterThan(Date.now() + 6.9 * DAY_MS)
  })

  test('ends after 30 days, however it is used', async () => {
    const { id, token } = await create()
    await change(id, { created_at: ago(29 * DAY_MS), used_at: ago(2 * MINUTE_MS) })
    await authenticator.identify(token)
    const [session] = await listCredentials(db, accountId, 'session')
    expect(session?.expiresAt?.getTime()).toBeLessThan(Date.now() + 1.1 * DAY_MS)
  })
})

describe('what was found', () => {
  test('is remembered for ten seconds, and then looked up again', async () => {
    const { id, token } = await create()
    await authenticator.identify(token)
    await db.deleteFrom('credential').where('id', '=', id).execute()
    expect(authenticator.identify(token)).toMatchObject({ credential: { id } })
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 10_001 })
    expect(await authenticator.identify(token)).toBeUndefined()
  })

  test('is forgotten when it is revoked, and who listens is told', async () => {
    const { id, token } = await create()
    const heard: string[] = []
    authenticator.onRevoke((credentialId) => heard.push(credentialId))
    await authenticator.identify(token)
    expect(await authenticator.revoke(db, accountId, 'session', { id })).toBe(1)
    expect(await authenticator.identify(token)).toBeUndefined()
    expect(heard).toEqual([id])
  })

  test('is nobody, where it was revoked while its look-up was under way', async () => {
    const { id, token } = await create()
    const held = holdNextAnswer()
    const waiting = [authenticator.identify(token), authenticator.identify(token)]
    await held.isFound
    await authenticator.revoke(db, accountId, 'session', { id })
    held.release()
    expect(await Promise.all(waiting)).toEqual([undefined, undefined])
    expect(await authenticator.identify(token)).toBeUndefined()
  })

  test('is remembered no longer than its session lasts', async () => {
    const { id, token } = await create()
    await change(id, { expires_at: ago(-5_000) })
    expect(await authenticator.identify(token)).toBeDefined()
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 5_001 })
    // The database has a clock of its own.
    await change(id, { expires_at: new Date(0) })
    expect(await authenticator.identify(token)).toBeUndefined()
  })

  test('is not remembered where the database failed', async () => {
    const { token } = await create()
    const table = db.schema.alterTable('credential')
    await table.renameTo('moved').execute()
    await expect(authenticator.identify(token)).rejects.toThrow()
    await db.schema.alterTable('moved').renameTo('credential').execute()
    expect(await authenticator.identify(token)).toBeDefined()
  })

  test('is one answer for all who ask at once', async () => {
    const { token } = await create()
    const [first, second] = [authenticator.identify(token), authenticator.identify(token)]
    expect(first).toBeInstanceOf(Promise)
    expect(second).toBe(first)
    expect(await second).toBe(authenticator.identify(token))
  })

  test('has no text in it that cannot be a token', () => {
    expect(authenticator.identify('x'.repeat(10_000))).toBeUndefined()
  })
})

test('revoking all but one spares that one, and keys', async () => {
  const [spared, ended] = [await create(), await create()]
  const key = await create({ kind: 'key', scopes: ['account'] })
  await authenticator.revoke(db, accountId, 'session', { except: spared.id })
  expect(await authenticator.identify(ended.token)).toBeUndefined()
  expect(await authenticator.identify(spared.token)).toBeDefined()
  expect(await authenticator.identify(key.token)).toBeDefined()
})

describe('while a client is connected', () => {
  /** Resolves once it is noticed. */
  async function untilNoticed(token: string, id: string) {
    const subject = await authenticator.identify(token)
    const heard: string[] = []
    authenticator.onRevoke((credentialId) => heard.push(credentialId))
    const stop = authenticator.watch(() => (subject ? [subject] : []))
    onTestFinished(stop)
    return () => until(() => heard.includes(id), 'it is noticed')
  }

  test('a session that another process ended is noticed', async () => {
    const { id, token } = await create()
    const noticed = await untilNoticed(token, id)
    await db.deleteFrom('credential').where('id', '=', id).execute()
    await noticed()
  })

  test('scopes that another process took from the account of a key are noticed', async () => {
    await db.updateTable('account').set({ role: 'operator' }).execute()
    const { id, token } = await create({ kind: 'key', scopes: ['operate'] })
    const noticed = await untilNoticed(token, id)
    await db.updateTable('account').set({ role: 'member' }).execute()
    await noticed()
    expect(await authenticator.identify(token)).toMatchObject({ scopes: new Set() })
  })
})

describe('signing in', () => {
  test('removes what has expired, and nothing else', async () => {
    const [expired, valid] = [await create(), await create()]
    const key = await create({ kind: 'key', expiresAt: ago(1) })
    const forever = await create({ kind: 'key' })
    await change(expired.id, { expires_at: ago(1) })
    await deleteExpired(db, 1)
    await deleteExpired(db, 100)
    const left = await db.selectFrom('credential').select('id').execute()
    expect(left.map(({ id }) => id)).toEqual(expect.arrayContaining([valid.id, forever.id]))
    for (const { id } of [expired, key]) expect(left).not.toContainEqual({ id })
  })
})

/** Keeps back what the database answers to the next look-up. */
function holdNextAnswer() {
  const found = Promise.withResolvers<void>()
  const released = Promise.withResolvers<void>()
  const execute = MysqlConnection.prototype.executeQuery
  const spy = vi.spyOn(MysqlConnection.prototype, 'executeQuery')
  onTestFinished(() => spy.mockRestore())
  spy.mockImplementationOnce(async function (this: MysqlConnection, query) {
    const answer = await execute.call(this, query)
    found.resolve()
    await released.promise
    return answer
  })
  return { isFound: found.promise, release: released.resolve }
}
