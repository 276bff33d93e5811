import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { createAccount } from '../../src/access/accounts.ts'
import { Authenticator } from '../../src/access/authenticator.ts'
import { createCredential, listCredentials } from '../../src/access/credentials.ts'
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

  test('is forgotten although its look-up was under way when it was revoked', async () => {
    const { id, token } = await create()
    const lookUp = authenticator.identify(token)
    await authenticator.revoke(db, accountId, 'session', { id })
    await lookUp
    expect(await authenticator.identify(token)).toBeUndefined()
  })

  test('is not remembered where the database failed', async () => {
    const { token } = await create()
    const broken = new Authenticator(db.withSchema('nowhere'))
    await expect(broken.identify(token)).rejects.toThrow()
    await expect(broken.identify(token)).rejects.toThrow()
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

test('a session that another process ended is noticed while a client is connected', async () => {
  const { id } = await create()
  const heard: string[] = []
  authenticator.onRevoke((credentialId) => heard.push(credentialId))
  const stop = authenticator.watch(() => [id])
  await db.deleteFrom('credential').where('id', '=', id).execute()
  await until(() => heard.includes(id), 'the session is noticed')
  stop()
})
