import { Hono } from 'hono'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createAccount } from '../../src/access/accounts.ts'
import { Authenticator } from '../../src/access/authenticator.ts'
import { createCredential } from '../../src/access/credentials.ts'
import { identifyBy } from '../../src/access/identify.ts'
import { AppError } from '../../src/errors.ts'
import { type Env, getContext, requestContext } from '../../src/http/context.ts'
import { createDatabase } from '../support/database.ts'

let opened: Awaited<ReturnType<typeof createDatabase>>
let me: string
let session: string
let key: string

beforeAll(async () => {
  opened = await createDatabase()
  const db = opened.database.withSignal()
  const account = { email: 'ann@example.com', password_hash: null, role: 'member' } as const
  const accountId = await createAccount(db, account)
  me = `account:${accountId}`
  const create = (kind: 'session' | 'key') =>
    createCredential(db, { kind, accountId, name: 'test' })
  session = (await create('session')).token
  key = (await create('key')).token
})
afterAll(() => opened.close())

/** Who calls: a subject, `anonymous`, or the status of a refusal. */
async function identify(headers: Record<string, string>, method = 'GET', behindTls = false) {
  const identify = identifyBy(new Authenticator(opened.database.withSignal()), behindTls)
  const app = new Hono<Env>()
  app.onError((error, c) => c.text(error instanceof AppError ? `${error.status}` : `${error}`))
  app.use(requestContext(10_000, () => {}))
  app.use(async (c, next) => {
    await identify(c)
    return next()
  })
  app.all('/', (c) => c.text(getContext(c).subject?.id ?? 'anonymous'))
  const response = await app.request('/', { method, headers: { host: 'shop.test', ...headers } })
  return response.text()
}

const UNKNOWN = `ofs_${'u'.repeat(43)}`

describe('an Authorization header', () => {
  test.each(['Bearer', 'bearer', 'BEARER  '])('of the scheme "%s" is known', async (scheme) => {
    expect(await identify({ authorization: `${scheme} ${key}` })).toBe(me)
  })

  test.each([
    '',
    'Bearer',
    'Bearer a b',
    'Bearer =',
    'Basic YTpi',
    `Bearer ${UNKNOWN}`,
    'Bearer,a',
  ])('such as "%s" is refused, whatever cookie is beside it', async (authorization) => {
    expect(await identify({ authorization })).toBe('401')
    expect(await identify({ authorization, cookie: `session=${session}` })).toBe('401')
  })

  test('may come from any site, because no browser sends it by itself', async () => {
    const headers = { authorization: `Bearer ${key}`, 'sec-fetch-site': 'cross-site' }
    expect(await identify(headers, 'POST')).toBe(me)
  })
})

describe('a cookie', () => {
  test.each([
    ['of a session', () => `session=${session}`, true],
    ['in quotes, among others', () => `a=1; session="${session}"; b=2`, true],
    ['that is first of two', () => `session=${session}; session=${UNKNOWN}`, true],
    ['that is second of two', () => `session=${UNKNOWN}; session=${session}`, false],
    ['of an ended session', () => `session=${UNKNOWN}`, false],
    ['without a value', () => 'session=', false],
    ['of another name', () => `xsession=${session}; __proto__=${session}`, false],
    ['that is no pair', () => session, false],
  ])('%s', async (_, cookie, isKnown) => {
    expect(await identify({ cookie: cookie() })).toBe(isKnown ? me : 'anonymous')
  })

  test('behind TLS is known by the name that sibling hosts cannot set (cookie tossing)', async () => {
    const ask = (cookie: string) => identify({ cookie }, 'GET', true)
    expect(await ask(`__Host-session=${session}`)).toBe(me)
    expect(await ask(`session=${session}`)).toBe('anonymous')
    expect(await ask(`session=${UNKNOWN}; __Host-session=${session}`)).toBe(me)
  })
})

describe('a change with a cookie', () => {
  test.each<[string, Record<string, string>, boolean]>([
    ['our page', { 'sec-fetch-site': 'same-origin' }, true],
    ['a bookmark', { 'sec-fetch-site': 'none' }, true],
    ['a sibling host', { 'sec-fetch-site': 'same-site' }, false],
    ['another site', { 'sec-fetch-site': 'cross-site' }, false],
    [
      'another site that sends our origin',
      { 'sec-fetch-site': 'x', origin: 'http://shop.test' },
      false,
    ],
    ['our origin', { origin: 'https://shop.test' }, true],
    ['our origin with the default port', { origin: 'https://Shop.test:443' }, true],
    ['another port', { origin: 'https://shop.test:8443' }, false],
    ['another host', { origin: 'https://shop.test.evil.test' }, false],
    ['an extension', { origin: 'chrome-extension://shop.test' }, false],
    ['a sandboxed frame', { origin: 'null' }, false],
    ['nowhere, as old browsers do', {}, false],
    [
      'a host that the attacker has renamed',
      { host: 'evil.test', origin: 'http://shop.test' },
      false,
    ],
  ])('from %s', async (_, headers, isTaken) => {
    const cookie = `session=${session}`
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE'])
      expect(await identify({ cookie, ...headers }, method)).toBe(isTaken ? me : '403')
    for (const method of ['GET', 'OPTIONS'])
      expect(await identify({ cookie, ...headers }, method)).toBe(me)
  })

  test('from a rebound host has no cookie, and is nobody’s', async () => {
    const headers = { host: 'evil.test', origin: 'http://evil.test' }
    expect(await identify({ ...headers, 'sec-fetch-site': 'same-origin' }, 'POST')).toBe(
      'anonymous',
    )
  })
})
