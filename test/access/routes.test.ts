import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { Passwords } from '../../src/access/password.ts'
import { startService, useService } from '../support/service.ts'

const PASSWORD = 'correct horse battery staple'
let service: Awaited<ReturnType<typeof startService>>
let url: string
let accounts = 0

beforeAll(async () => {
  service = await startService()
  url = service.url
})
afterAll(() => service.close())

interface Options {
  cookie?: string | undefined
  headers?: Record<string, string>
  base?: string
}

/** As a browser of our own page does. */
async function call(
  method: string,
  path: string,
  body?: unknown,
  { cookie, headers, base = url }: Options = {},
) {
  const response = await fetch(base + path, {
    method,
    headers: {
      'content-type': 'application/json',
      'sec-fetch-site': 'same-origin',
      ...(cookie !== undefined && { cookie }),
      ...headers,
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  })
  const text = await response.text()
  const [set] = response.headers.getSetCookie()
  return {
    status: response.status,
    headers: response.headers,
    body: text && JSON.parse(text),
    set,
    cookie: set?.split(';')[0],
  }
}

/** A body that `JSON.stringify` would not write. */
async function send(path: string, body: string, headers: Record<string, string> = {}) {
  const type = { 'content-type': 'application/json' }
  const response = await fetch(url + path, {
    method: 'POST',
    headers: { ...type, ...headers },
    body,
  })
  const [set] = response.headers.getSetCookie()
  return { status: response.status, body: JSON.parse(await response.text()), set }
}

const newEmail = () => `person${++accounts}@example.com`

async function signUp(email = newEmail()) {
  const { cookie } = await call('POST', '/v1/accounts', { email, password: PASSWORD })
  return { email, cookie }
}

const signIn = (email: string, password = PASSWORD) =>
  call('POST', '/v1/sessions', { email, password })

const me = (cookie: string | undefined) => call('GET', '/v1/accounts/me', undefined, { cookie })

describe('signing up', () => {
  test('creates a member, who is signed in', async () => {
    const { status, body, set, cookie } = await call('POST', '/v1/accounts', {
      email: '  Ann@Example.com ',
      password: PASSWORD,
    })
    expect(status).toBe(201)
    expect(body).toMatchObject({ email: 'ann@example.com', role: 'member' })
    expect(set).toMatch(/^session=ofs_[\w-]{43}; Max-Age=2592000; Path=\/; HttpOnly; SameSite=Lax$/)
    expect((await me(cookie)).body).toEqual(body)
  })

  test('needs an address that nobody has, in any case', async () => {
    const { email } = await signUp()
    const again = { email: email.toUpperCase(), password: PASSWORD }
    expect((await call('POST', '/v1/accounts', again)).body.code).toBe('conflict')
  })

  test.each([
    'ann@exаmple.com',
    'аnn@example.com',
    'ann＠example.com',
    'ann',
    'a b@example.com',
    'ann@example.com\n.evil',
  ])('refuses the address %s, which could look like another', async (email) => {
    const { status, body } = await call('POST', '/v1/accounts', { email, password: PASSWORD })
    expect([status, body.errors[0].path]).toEqual([422, 'body.email'])
  })

  test.each([
    ['a role', '"role":"operator"'],
    ['a prototype', '"__proto__":{"role":"operator"}'],
    ['a constructor', '"constructor":{"prototype":{"role":"operator"}}'],
  ])('takes no more than an address and a password: not %s', async (_, more) => {
    const text = `{"email":"${newEmail()}","password":"${PASSWORD}",${more}}`
    const { status, set } = await send('/v1/accounts', text)
    expect([status, set]).toEqual([422, undefined])
  })

  test('takes the last of two members of one name, as JSON.parse does', async () => {
    const [first, last] = [newEmail(), newEmail()]
    const text = `{"email":"${first}","email":"${last}","password":"${PASSWORD}"}`
    expect((await send('/v1/accounts', text)).body).toMatchObject({ email: last, role: 'member' })
    expect((await signIn(first)).status).toBe(401)
  })

  test('refuses a password of fewer than twelve characters', async () => {
    const account = { email: newEmail(), password: 'elevenchars' }
    expect((await call('POST', '/v1/accounts', account)).body.errors).toEqual([
      { path: 'body.password', message: 'Must have at least 12 characters' },
    ])
  })

  test('can be switched off', async () => {
    const { url: base } = await useService({ SIGN_UP: 'false' })
    const account = { email: newEmail(), password: PASSWORD }
    const { body } = await call('POST', '/v1/accounts', account, { base })
    expect(body.code).toBe('forbidden')
  })
})

describe('signing in', () => {
  test('starts a new session each time, and leaves the others', async () => {
    const { email, cookie } = await signUp()
    const again = await signIn(email)
    expect(again.status).toBe(201)
    expect(again.cookie).not.toBe(cookie)
    expect([(await me(cookie)).status, (await me(again.cookie)).status]).toEqual([200, 200])
  })

  test('with a wrong password and with an unknown address is answered alike', async () => {
    const { email } = await signUp()
    const [wrong, unknown] = [await signIn(email, 'not it'), await signIn('nobody@example.com')]
    expect(wrong.status).toBe(401)
    expect({ ...unknown.body, requestId: '' }).toEqual({ ...wrong.body, requestId: '' })
    expect(wrong.set).toBeUndefined()
  })

  test('with the old password ends where the password changes meanwhile', async () => {
    const { email, cookie } = await signUp()
    const check = vi.spyOn(Passwords.prototype, 'check')
    onTestFinished(() => check.mockRestore())
    check.mockImplementationOnce(async () => {
      const change = { password: PASSWORD, newPassword: 'another long password' }
      const { status } = await call('PUT', '/v1/accounts/me/password', change, { cookie })
      expect(status).toBe(204)
      return true
    })
    expect((await signIn(email)).status).toBe(401)
    const { body } = await call('GET', '/v1/sessions', undefined, { cookie })
    expect(body.items).toHaveLength(1)
  })

  test('gives no session that a visitor brought (session fixation)', async () => {
    const { email } = await signUp()
    const planted = `session=ofs_${'f'.repeat(43)}`
    const { cookie } = await call(
      'POST',
      '/v1/sessions',
      { email, password: PASSWORD },
      { cookie: planted },
    )
    expect(cookie).not.toBe(planted)
    expect((await me(planted)).status).toBe(401)
  })

  test('behind TLS sets a cookie that other hosts cannot set', async () => {
    const { url: base } = await useService({ BEHIND_TLS: 'true' })
    const account = { email: newEmail(), password: PASSWORD }
    const { set } = await call('POST', '/v1/accounts', account, { base })
    expect(set).toMatch(/^__Host-session=.*; Path=\/; HttpOnly; Secure; SameSite=Lax$/)
    expect(set).not.toContain('Domain')
  })
})

describe('sessions', () => {
  test('are listed, with the one that asks', async () => {
    const { email, cookie } = await signUp()
    await signIn(email)
    const { body } = await call('GET', '/v1/sessions', undefined, { cookie })
    expect(body.items).toHaveLength(2)
    expect(body.items.filter((item: { current: boolean }) => item.current)).toHaveLength(1)
    expect(JSON.stringify(body)).not.toContain('ofs_')
  })

  test('end one by one, and only one’s own', async () => {
    const [first, other] = [await signUp(), await signUp()]
    const second = await signIn(first.email)
    const { body } = await call('GET', '/v1/sessions', undefined, { cookie: second.cookie })
    const { id } = body.items.find((item: { current: boolean }) => !item.current)
    const path = `/v1/sessions/${id}`
    expect((await call('DELETE', path, undefined, { cookie: other.cookie })).status).toBe(404)
    expect((await call('DELETE', path, undefined, { cookie: second.cookie })).status).toBe(204)
    expect((await me(first.cookie)).status).toBe(401)
    expect((await me(second.cookie)).status).toBe(200)
  })

  test('end by signing out, which removes the cookie', async () => {
    const { cookie } = await signUp()
    const { status, set } = await call('DELETE', '/v1/sessions/current', undefined, { cookie })
    expect(status).toBe(204)
    expect(set).toMatch(/^session=; Max-Age=0/)
    expect((await me(cookie)).status).toBe(401)
  })

  test('end all at once', async () => {
    const { email, cookie } = await signUp()
    const second = await signIn(email)
    expect((await call('DELETE', '/v1/sessions', undefined, { cookie })).status).toBe(204)
    expect([(await me(cookie)).status, (await me(second.cookie)).status]).toEqual([401, 401])
  })
})

describe('a new password', () => {
  const change = (password: string, newPassword: string, cookie?: string) =>
    call('PUT', '/v1/accounts/me/password', { password, newPassword }, { cookie })

  test('ends the other sessions', async () => {
    const { email, cookie } = await signUp()
    const second = await signIn(email)
    expect((await change(PASSWORD, 'another long password', cookie)).status).toBe(204)
    expect((await me(cookie)).status).toBe(200)
    expect((await me(second.cookie)).status).toBe(401)
    expect((await signIn(email)).status).toBe(401)
    expect((await signIn(email, 'another long password')).status).toBe(201)
  })

  test('needs the old one', async () => {
    const { cookie } = await signUp()
    expect((await change('a wrong password', 'another long password', cookie)).status).toBe(401)
  })
})

describe('an API key', () => {
  const create = (key: object, cookie?: string) => call('POST', '/v1/keys', key, { cookie })
  const as = (key: string) => ({ headers: { authorization: `Bearer ${key}` } })

  test('is shown once, and calls with its scopes', async () => {
    const { cookie } = await signUp()
    const { status, body } = await create({ name: 'CI', scopes: ['account'] }, cookie)
    expect(status).toBe(201)
    expect(body).toMatchObject({ name: 'CI', scopes: ['account'], expiresAt: null })
    expect(body.key).toMatch(/^ofl_[\w-]{43}$/)
    const found = await call('GET', '/v1/accounts/me', undefined, as(body.key))
    expect(found.body.scopes).toEqual(['account'])
    const list = await call('GET', '/v1/keys', undefined, { cookie })
    expect(list.body.items).toEqual([{ ...body, key: undefined }])
  })

  test('has no scope that its owner lacks', async () => {
    const { cookie } = await signUp()
    const { body } = await create({ name: 'root', scopes: ['account', 'operate'] }, cookie)
    expect(body.errors).toEqual([
      { path: 'body.scopes', message: 'You do not have operate yourself' },
    ])
  })

  test('is revoked at once, and only by its owner', async () => {
    const [owner, other] = [await signUp(), await signUp()]
    const { body } = await create({ name: 'CI', scopes: ['account'] }, owner.cookie)
    const path = `/v1/keys/${body.id}`
    expect((await call('DELETE', path, undefined, { cookie: other.cookie })).status).toBe(404)
    expect((await call('DELETE', path, undefined, { cookie: owner.cookie })).status).toBe(204)
    const { status, headers } = await call('GET', '/v1/accounts/me', undefined, as(body.key))
    expect(status).toBe(401)
    expect(headers.get('www-authenticate')).toBe('Bearer error="invalid_token"')
  })

  test('expires', async () => {
    const { cookie } = await signUp()
    const { body } = await create({ name: 'CI', scopes: ['account'], expiresInDays: 1 }, cookie)
    const left = Date.parse(body.expiresAt) - Date.now()
    expect(left).toBeGreaterThan(0.99 * 86_400_000)
    expect(left).toBeLessThanOrEqual(86_400_000)
  })

  test('makes no others, which would outlive it', async () => {
    const { cookie } = await signUp()
    const key = { name: 'CI', scopes: ['account'] }
    const { body } = await create(key, cookie)
    const made = await call('POST', '/v1/keys', key, as(body.key))
    expect([made.status, made.body.code]).toEqual([403, 'forbidden'])
  })

  test('cannot be found by trying: all wrong ones get one answer', async () => {
    const { cookie } = await signUp()
    const { body } = await create({ name: 'CI', scopes: ['account'] }, cookie)
    const near = `${body.key.slice(0, -1)}${body.key.endsWith('A') ? 'B' : 'A'}`
    const random = Array.from({ length: 20 }, () => `ofl_${randomBytes(32).toString('base64url')}`)
    const answers = new Set<string>()
    for (const key of [...random, near, body.key.toUpperCase(), body.id]) {
      const answer = await call('GET', '/v1/accounts/me', undefined, as(key))
      answers.add(JSON.stringify([answer.status, { ...answer.body, requestId: '' }]))
    }
    expect([...answers]).toEqual([expect.stringMatching(/^\[401,/)])
  })

  test('that is unknown is refused, even where anybody may read', async () => {
    const random = as(`ofl_${'r'.repeat(43)}`)
    const { status, body } = await call('GET', '/openapi.json', undefined, random)
    expect([status, body.code]).toEqual([401, 'unauthenticated'])
  })

  test.each(['Basic YTpi', 'Bearer', 'Bearer a b', 'ofl_x'])(
    'is not "%s", and the answer says what to send',
    async (authorization) => {
      const { status, body } = await call('GET', '/v1/accounts/me', undefined, {
        headers: { authorization },
      })
      expect(status).toBe(401)
      expect(body.detail).toContain('Authorization: Bearer')
    },
  )
})

describe('another site', () => {
  const from = (headers: Record<string, string>) => async (cookie: string | undefined) =>
    (
      await fetch(`${url}/v1/keys`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', cookie: cookie ?? '', ...headers },
        body: JSON.stringify({ name: 'CI', scopes: ['account'] }),
      })
    ).status

  test.each<[string, Record<string, string>]>([
    ['a page of another site', { 'sec-fetch-site': 'cross-site' }],
    ['a page of a sibling host', { 'sec-fetch-site': 'same-site' }],
    ['an older browser on another site', { origin: 'https://evil.example' }],
    ['a sandboxed frame', { origin: 'null' }],
    ['who says nothing of where it comes from', {}],
  ])('cannot change anything by a cookie: %s', async (_, headers) => {
    const { cookie } = await signUp()
    expect(await from(headers)(cookie)).toBe(403)
  })

  test.each(['application/x-www-form-urlencoded', 'multipart/form-data', 'text/plain'])(
    'cannot sign a visitor in by a form of %s',
    async (type) => {
      const { email } = await signUp()
      const text = JSON.stringify({ email, password: PASSWORD })
      const headers = { 'content-type': type, 'sec-fetch-site': 'cross-site' }
      const { status, set } = await send('/v1/sessions', text, headers)
      expect([status, set]).toEqual([415, undefined])
    },
  )

  test('gets no leave to send JSON, by which its page could sign a visitor in', async () => {
    const { headers } = await fetch(`${url}/v1/sessions`, {
      method: 'OPTIONS',
      headers: {
        origin: 'https://evil.example',
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'content-type',
      },
    })
    expect(headers.get('access-control-allow-origin')).toBeNull()
  })

  test('is not what our own page is, in older browsers too', async () => {
    const { cookie } = await signUp()
    expect(await from({ origin: url })(cookie)).toBe(201)
    expect(await from({ 'sec-fetch-site': 'none' })(cookie)).toBe(201)
  })
})
