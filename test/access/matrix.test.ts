import { io } from 'socket.io-client'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { createAccount } from '../../src/access/accounts.ts'
import { createCredential } from '../../src/access/credentials.ts'
import type { Feature, FeatureTopic } from '../../src/feature.ts'
import { features } from '../../src/features/index.ts'
import { OPS } from '../../src/ops/live-samples.ts'
import { ROLES, type Role, type Scope } from '../../src/roles.ts'
import { startService } from '../support/service.ts'

/** A caller: its token, and what it may do; undefined if it is nobody any more. */
interface Caller {
  token: string | undefined
  scopes: readonly string[] | undefined
}

let service: Awaited<ReturnType<typeof startService>>
const callers: Record<string, Caller> = { anonymous: { token: undefined, scopes: undefined } }

beforeAll(async () => {
  service = await startService({ DOCS_ACCESS: 'operate', JOBS_QUEUES: 'off' })
  const db = service.database.withSignal()
  const add = async (name: string, role: Role, kind: 'session' | 'key', scopes?: Scope[]) => {
    const email = `${name.replaceAll(' ', '-')}@example.com`
    const accountId = await createAccount(db, { email, password_hash: null, role })
    const options = { kind, accountId, name, scopes: scopes ?? null }
    const { id, token } = await createCredential(db, options)
    callers[name] = { token, scopes: scopes ?? ROLES[role] }
    return db.updateTable('credential').where('id', '=', id)
  }
  await add('member', 'member', 'session')
  await add('other member', 'member', 'key')
  await add('operator', 'operator', 'session')
  await add('key with one scope', 'operator', 'key', ['account'])
  const expired = await add('expired', 'operator', 'session')
  await expired.set({ expires_at: new Date(Date.now() - 1) }).execute()
  const revoked = await add('revoked', 'operator', 'key')
  await revoked.set({ token_hash: 'none' }).execute()
  for (const name of ['expired', 'revoked']) (callers[name] as Caller).scopes = undefined
})
afterAll(() => service.close())

const toHeaders = ({ token }: Caller): Record<string, string> =>
  token === undefined
    ? {}
    : token.startsWith('ofs_')
      ? { cookie: `session=${token}`, 'sec-fetch-site': 'same-origin' }
      : { authorization: `Bearer ${token}` }

/** `allowed` stands for any other answer: the requests are mostly invalid. */
async function call(method: string, path: string, caller: Caller) {
  const { status } = await fetch(`${service.url}${path.replace('{id}', UNKNOWN)}`, {
    method: method.toUpperCase(),
    headers: { ...toHeaders(caller), 'content-type': 'application/json' },
    ...(['post', 'put', 'patch'].includes(method) && { body: '{"unknown":1}' }),
    signal: AbortSignal.timeout(10_000),
  })
  return [401, 403].includes(status) ? status : 'allowed'
}

const UNKNOWN = '00000000-0000-4000-8000-00000000000f'

function expected(scope: string | undefined, { token, scopes }: Caller) {
  const isUnknownKey = scopes === undefined && token?.startsWith('ofl_')
  if (isUnknownKey) return 401
  if (scope === undefined) return 'allowed'
  if (scopes === undefined) return 401
  return scopes.includes(scope) ? 'allowed' : 403
}

test('each operation lets in who has its scope, and nobody else', async () => {
  const response = await fetch(`${service.url}/openapi.json`, {
    headers: toHeaders(callers['operator'] as Caller),
  })
  const { paths } = (await response.json()) as Document
  const wrong: string[] = []
  let calls = 0
  for (const [path, methods] of Object.entries(paths))
    for (const [method, { operationId, security }] of Object.entries(methods))
      for (const [name, caller] of Object.entries(callers)) {
        // It would end the sessions of those who come after.
        if (operationId === 'endSessions' && expected('account', caller) === 'allowed') continue
        const scope = security.at(-1)?.apiKey?.[0]
        const answer = await call(method, path, caller)
        const right = expected(scope, caller)
        if (answer !== right) wrong.push(`${method} ${path} as ${name}: ${answer}, not ${right}`)
        calls++
      }
  expect(wrong).toEqual([])
  expect(calls).toBeGreaterThan(100)
})

interface Document {
  paths: Record<
    string,
    Record<string, { operationId: string; security: { apiKey?: string[]; session?: [] }[] }>
  >
}

test.each([
  ['/', 'allowed'],
  ['/docs', 401],
  ['/openapi.json', 401],
  ['/metrics', 404],
])('GET %s is %s for anonymous visitors', async (path, answer) => {
  const { status } = await fetch(service.url + path)
  expect([401, 404].includes(status) ? status : 'allowed').toBe(answer)
})

describe('topics', () => {
  const all: FeatureTopic[] = [
    ...features.flatMap(({ topics = [] }: Feature) => topics),
    { name: OPS, access: 'operate' },
  ]

  /** Of a pattern, what its events say. */
  function nameOf({ name }: FeatureTopic): string {
    if (typeof name === 'string') return name
    const named = features.flatMap(({ events = [] }: Feature) => events)
    const names = named.map(({ topic }) => topic.replace('{id}', UNKNOWN))
    return names.find((found) => name.test(found)) ?? expect.fail(`No event is sent to ${name}`)
  }

  test('each lets in who has its scope, and nobody else', async () => {
    const wrong: string[] = []
    for (const [as, caller] of Object.entries(callers)) {
      const socket = io(service.url, {
        transports: ['websocket'],
        forceNew: true,
        reconnection: false,
        ...(caller.token !== undefined && { auth: { token: caller.token } }),
      })
      onTestFinished(() => void socket.close())
      if (caller.token !== undefined && caller.scopes === undefined) {
        const error = await new Promise<Error>((resolve) => socket.on('connect_error', resolve))
        expect(error.message).toContain('unknown, revoked or expired')
        continue
      }
      for (const topic of all) {
        const name = nameOf(topic)
        const { ok, code } = await socket.timeout(5_000).emitWithAck('subscribe', name)
        // Whose a topic is, is a matter of its feature.
        const answer = ok || code === 'not_found' ? 'allowed' : code
        const scope = topic.access === 'public' ? undefined : topic.access
        const right = { 401: 'unauthenticated', 403: 'forbidden', allowed: 'allowed' }[
          expected(scope, caller)
        ]
        if (answer !== right) wrong.push(`${name} as ${as}: ${answer}, not ${right}`)
      }
    }
    expect(wrong).toEqual([])
  })
})
