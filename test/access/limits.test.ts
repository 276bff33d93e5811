import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { createAccount } from '../../src/access/accounts.ts'
import { createCredential } from '../../src/access/credentials.ts'
import { LIMITS, RateLimits } from '../../src/access/limits.ts'
import { AS_OPERATOR } from '../support/operator.ts'
import { request, useService } from '../support/service.ts'

/** The service behind one proxy, so that a test can be many clients. */
const useLimited = () => useService({ RATE_LIMITS: 'on', TRUST_PROXY: '1' })
const from = (client: string) => ({ 'x-forwarded-for': client })

/** Sends JSON as somebody unknown, unless `headers` say who. */
async function post(url: string, body: unknown, headers: Record<string, string>) {
  const type = { 'content-type': 'application/json' }
  const sent = { method: 'POST', headers: { ...type, ...headers }, body: JSON.stringify(body) }
  const response = await fetch(url, sent)
  const { code } = (await response.json()) as { code?: string }
  return { status: response.status, headers: response.headers, code }
}

/** Counts against `login`, and costs no password's hash. */
const signIn = (url: string, headers: Record<string, string>) =>
  post(`${url}/v1/sessions`, {}, headers)

async function useUp(ask: () => Promise<unknown>, limit: keyof typeof LIMITS) {
  for (let count = 0; count < LIMITS[limit].points; count++) await ask()
}

describe('requests', () => {
  test('are told what is left of the limit of their route', async () => {
    const { url } = await useLimited()
    const read = await request(`${url}/v1/jobs`, 'GET', undefined, AS_OPERATOR)
    const { points, seconds } = LIMITS.read
    expect(read.headers.get('ratelimit-policy')).toBe(`"read";q=${points};w=${seconds}`)
    expect(read.headers.get('ratelimit')).toBe(`"read";r=${points - 1};t=${seconds}`)
    const login = await signIn(url, {})
    expect(login.headers.get('ratelimit')).toMatch(/^"login";r=19;/)
  })

  test('of a client over its limit get 429 and the time to wait, and those of others are served', async () => {
    const { url } = await useLimited()
    const attacker = () => signIn(url, from('192.0.2.1'))
    await useUp(attacker, 'login')
    const { status, headers, code } = await attacker()
    expect([status, code]).toEqual([429, 'rate_limited'])
    expect(headers.get('ratelimit')).toBe(`"login";r=0;t=${headers.get('retry-after')}`)
    expect(Number(headers.get('retry-after'))).toBeGreaterThan(LIMITS.login.seconds - 30)
    expect((await signIn(url, from('192.0.2.2'))).status).toBe(422)
    expect((await fetch(`${url}/openapi.json`, { headers: from('192.0.2.1') })).status).toBe(200)
  })

  test('count together from one network of IPv6', async () => {
    const { url } = await useLimited()
    let host = 0
    await useUp(() => signIn(url, from(`2001:db8::${++host}`)), 'login')
    expect((await signIn(url, from('2001:db8::ffff'))).status).toBe(429)
    expect((await signIn(url, from('2001:db8:0:1::1'))).status).toBe(422)
  })

  test('do not escape by made-up addresses', async () => {
    const { url } = await useService({ RATE_LIMITS: 'on' })
    let made = 0
    const spoof = () =>
      signIn(url, { ...from(`192.0.2.${++made}`), forwarded: `for=192.0.2.${made}` })
    await useUp(spoof, 'login')
    expect((await spoof()).status).toBe(429)
    const behind = await useLimited()
    const spoofLeft = () => signIn(behind.url, from(`192.0.2.${++made}, 203.0.113.9`))
    await useUp(spoofLeft, 'login')
    expect((await spoofLeft()).status).toBe(429)
  })

  test('of one subject count together from all addresses, and apart from others at its address', async () => {
    const { url, database } = await useLimited()
    const [one, other] = [await addKey(database.withSignal()), await addKey(database.withSignal())]
    let host = 0
    await useUp(() => signIn(url, { ...one, ...from(`198.51.100.${++host}`) }), 'login')
    expect((await signIn(url, { ...one, ...from('192.0.2.7') })).status).toBe(429)
    expect((await signIn(url, { ...other, ...from('192.0.2.7') })).status).toBe(422)
  })

  test('with unknown tokens are refused after some, and those with known ones are not', async () => {
    const { url } = await useLimited()
    const ask = (authorization: string, client = '192.0.2.1') =>
      request(`${url}/v1/jobs`, 'GET', undefined, { authorization, ...from(client) })
    await ask(AS_OPERATOR.authorization)
    let guess = 0
    const newToken = () => `Bearer ofl_${String(++guess).padStart(43, 'x')}`
    await useUp(() => ask(newToken()), 'token')
    expect((await ask(newToken())).status).toBe(429)
    expect((await ask(newToken(), '192.0.2.2')).status).toBe(401)
    expect((await ask(AS_OPERATOR.authorization)).status).toBe(200)
  })
})

describe('a limit', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['Date'] }))
  afterEach(() => void vi.useRealTimers())

  test('starts anew when its time is over', async () => {
    const limits = new RateLimits({ unlimited: 'none' })
    const guess = () => limits.countGuess('a@example.com', '192.0.2.1', false)
    await useUp(guess, 'guess')
    await expect(guess()).rejects.toMatchObject({ code: 'rate_limited' })
    vi.setSystemTime(Date.now() + LIMITS.guess.seconds * 1_000)
    await expect(guess()).resolves.toBeTypeOf('function')
  })

  test('of wrong passwords makes waits that grow, up to an hour', async () => {
    const limits = new RateLimits({ unlimited: 'none' })
    const waits = new Set<number>()
    for (let second = 0; second < LIMITS.manyGuesses.seconds; second++) {
      await limits.countGuess('a@example.com', '192.0.2.1', false).catch(({ headers }) => {
        waits.add(Number(headers['Retry-After']))
      })
      vi.setSystemTime(Date.now() + 1_000)
    }
    expect(
      [...waits].filter((wait, index) => wait > (([...waits][index - 1] as number) ?? 0)),
    ).toHaveLength(3)
    expect(Math.max(...waits)).toBeLessThan(LIMITS.manyGuesses.seconds)
  })

  test('does not hold for this machine and its network where that is said, or for anybody', () => {
    const isUnlimited = (unlimited: 'all' | 'local' | 'none') =>
      ['127.0.0.1', '::1', '172.18.0.1', '203.0.113.1'].map((client) =>
        new RateLimits({ unlimited }).isUnlimited(client),
      )
    expect(isUnlimited('none')).toEqual([false, false, false, false])
    expect(isUnlimited('local')).toEqual([true, true, true, false])
    expect(isUnlimited('all')).toEqual([true, true, true, true])
  })
})

describe('wrong passwords', () => {
  const PASSWORD = 'correct horse battery'
  const EMAIL = 'owner@example.com'

  async function useAccount() {
    const { url } = await useLimited()
    const ask = (client: string, password: string, email = EMAIL) =>
      post(`${url}/v1/sessions`, { email, password }, from(client))
    const account = { email: EMAIL, password: PASSWORD }
    await post(`${url}/v1/accounts`, account, from('203.0.113.1'))
    return ask
  }

  test('are refused after a few, though the next one were right, alike for an account that is none', async () => {
    const ask = await useAccount()
    const answers = async (email: string, client: string) => {
      const found = []
      for (let count = 0; count <= LIMITS.guess.points; count++) {
        const { status, code } = await ask(client, 'wrong', email)
        found.push([status, code])
      }
      return found
    }
    const known = await answers(EMAIL, '192.0.2.1')
    expect(known.at(-1)).toEqual([429, 'rate_limited'])
    expect(await answers('nobody@example.com', '192.0.2.2')).toEqual(known)
    expect((await ask('192.0.2.1', PASSWORD)).status).toBe(429)
  })

  test('of strangers do not lock out the owner', async () => {
    const ask = await useAccount()
    for (let count = 0; count < LIMITS.anyGuess.points; count += LIMITS.guess.points)
      for (let guess = 0; guess < LIMITS.guess.points; guess++)
        await ask(`192.0.2.${count}`, 'wrong')
    expect((await ask('198.51.100.1', 'wrong')).status).toBe(429)
    expect((await ask('203.0.113.1', PASSWORD)).status).toBe(201)
  })

  test('are forgotten when the right one comes', async () => {
    const ask = await useAccount()
    for (let round = 0; round < 2; round++) {
      for (let guess = 1; guess < LIMITS.guess.points; guess++) await ask('192.0.2.1', 'wrong')
      expect((await ask('192.0.2.1', PASSWORD)).status).toBe(201)
    }
  })
})

let accounts = 0
type Db = Parameters<typeof createAccount>[0]

async function addKey(db: Db) {
  const email = `member${++accounts}@example.com`
  const accountId = await createAccount(db, { email, password_hash: null, role: 'member' })
  const { token } = await createCredential(db, { kind: 'key', accountId, name: 'test' })
  return { authorization: `Bearer ${token}` }
}
