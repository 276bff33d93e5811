import { io, type Socket } from 'socket.io-client'
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from 'vitest'
import { createAccount } from '../../src/access/accounts.ts'
import { createCredential } from '../../src/access/credentials.ts'
import { MysqlConnection } from '../../src/db/connection.ts'
import { startFixture } from '../support/fixture/features.ts'
import { until } from '../support/until.ts'

let service: Awaited<ReturnType<typeof startFixture>>
let url: string

beforeAll(async () => {
  service = await startFixture()
  url = service.url
})
afterAll(() => service.close())

let accounts = 0

async function addSession(kind: 'session' | 'key' = 'session') {
  const db = service.database.withSignal()
  const account = { email: `operator${++accounts}@example.com`, password_hash: null } as const
  const accountId = await createAccount(db, { ...account, role: 'operator' })
  const credential = await createCredential(db, { kind, accountId, name: 'test' })
  return { ...credential, accountId }
}

/** Resolves once the socket is connected or refused. */
async function connect(options: Parameters<typeof io>[1]): Promise<Socket> {
  const socket = io(url, {
    transports: ['websocket'],
    forceNew: true,
    reconnection: false,
    ...options,
  })
  onTestFinished(() => void socket.close())
  await new Promise<void>((resolve, reject) =>
    socket.on('connect', resolve).on('connect_error', reject),
  )
  return socket
}

const withCookie = (token: string, origin?: string) => ({
  extraHeaders: { cookie: `session=${token}`, ...(origin !== undefined && { origin }) },
})

const subscribe = (socket: Socket, topic = 'ops') =>
  socket.timeout(5_000).emitWithAck('subscribe', topic)

test('a page of our own is known by its cookie', async () => {
  const { token } = await addSession()
  expect(await subscribe(await connect(withCookie(token, url)))).toEqual({ ok: true })
})

test('a program is known by its token or its Authorization header', async () => {
  const { token } = await addSession('key')
  expect(await subscribe(await connect({ auth: { token } }))).toEqual({ ok: true })
  const extraHeaders = { authorization: `Bearer ${token}` }
  expect(await subscribe(await connect({ extraHeaders }))).toEqual({ ok: true })
})

test('a page of another site does not connect, and a cookie without an origin is nobody’s', async () => {
  const { token } = await addSession()
  await expect(connect(withCookie(token, 'https://evil.example'))).rejects.toThrow()
  expect(await subscribe(await connect(withCookie(token)))).toMatchObject({
    ok: false,
    code: 'unauthenticated',
  })
})

test('anybody may subscribe to what is public', async () => {
  expect(await subscribe(await connect({}), 'items')).toEqual({ ok: true })
})

test.each(['nonsense', `ofl_${'x'.repeat(43)}`, { not: 'a string' }])(
  'the token %j is refused with the reason',
  async (token) => {
    await expect(connect({ auth: { token } })).rejects.toThrow('unknown, revoked or expired')
  },
)

test('a session that is ended loses its sockets within a second, and others keep theirs', async () => {
  const [ended, other] = [await addSession(), await addSession()]
  const sockets = [
    await connect(withCookie(ended.token, url)),
    await connect(withCookie(ended.token, url)),
  ]
  const spared = await connect(withCookie(other.token, url))
  const headers = { cookie: `session=${ended.token}`, 'sec-fetch-site': 'same-origin' }
  await fetch(`${url}/v1/sessions/current`, { method: 'DELETE', headers })
  await until(() => sockets.every((socket) => socket.disconnected), 'the sockets are closed', 1_000)
  expect(spared.connected).toBe(true)
  expect((await fetch(`${url}/v1/accounts/me`, { headers })).status).toBe(401)
})

test('a session that expires loses its sockets within a second', async () => {
  const { id, token } = await addSession()
  const expiresAt = new Date(Date.now() + 3_000)
  const db = service.database.withSignal()
  await db.updateTable('credential').set({ expires_at: expiresAt }).where('id', '=', id).execute()
  const socket = await connect(withCookie(token, url))
  const leftMs = expiresAt.getTime() - Date.now()
  await until(() => socket.disconnected, 'the socket is closed', leftMs + 1_000)
  expect(Date.now()).toBeGreaterThanOrEqual(expiresAt.getTime())
})

test('a session that ends while its socket connects gets no socket', async () => {
  const db = service.database.withSignal()
  const { id, token, accountId } = await addSession()
  const { token: other } = await createCredential(db, { kind: 'session', accountId, name: 'other' })
  const headers = { authorization: `Bearer ${other}` }
  expect((await fetch(`${url}/v1/accounts/me`, { headers })).status).toBe(200)
  const execute = MysqlConnection.prototype.executeQuery
  const spy = vi.spyOn(MysqlConnection.prototype, 'executeQuery')
  onTestFinished(() => spy.mockRestore())
  let ended = 0
  spy.mockImplementation(async function (this: MysqlConnection, query) {
    const answer = await execute.call(this, query)
    if (/^select.*`token_hash` = /.test(query.sql) && ended++ === 0)
      await fetch(`${url}/v1/sessions/${id}`, { method: 'DELETE', headers })
    return answer
  })
  await expect(connect({ auth: { token } })).rejects.toThrow('unknown, revoked or expired')
  expect(ended).toBe(2)
})
