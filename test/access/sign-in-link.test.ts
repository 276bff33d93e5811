import { describe, expect, test } from 'vitest'
import { useService } from '../support/service.ts'

const useDevelopment = () => useService({ NODE_ENV: 'development', LOG_FORMAT: 'json' })
const open = (link = '', init: RequestInit = {}) => fetch(link, { redirect: 'manual', ...init })

describe('the link of a development start', () => {
  test('signs the local operator in, and leads to the page', async () => {
    const { url, signInUrl } = await useDevelopment()
    const { status, headers } = await open(signInUrl)
    expect([status, headers.get('location')]).toEqual([303, '/'])
    const [cookie = ''] = headers.get('set-cookie')?.split(';') ?? []
    const me = await fetch(`${url}/v1/accounts/me`, { headers: { cookie } })
    expect(await me.json()).toMatchObject({ email: 'operator@localhost', role: 'operator' })
  })

  test('works once, however many open it together', async () => {
    const { signInUrl } = await useDevelopment()
    const statuses = await Promise.all([1, 2, 3, 4].map(async () => (await open(signInUrl)).status))
    expect(statuses.toSorted()).toEqual([303, 401, 401, 401])
    const answer = await open(signInUrl)
    expect(answer.headers.get('set-cookie')).toBe(null)
    expect(await answer.text()).toMatch(/has been used.*restart the service/)
  })

  test.each([
    ['HEAD', { method: 'HEAD' }],
    ['a prefetch', { headers: { 'sec-purpose': 'prefetch;prerender' } }],
    ["Safari's preview", { headers: { purpose: 'prefetch' } }],
  ])('is not used up by %s', async (_, init) => {
    const { signInUrl } = await useDevelopment()
    expect((await open(signInUrl, init)).status).toBe(403)
    expect((await open(signInUrl)).status).toBe(303)
  })

  test.each(['', '?token=', '?token=wrong'])('opens nothing as /sign-in%s', async (query) => {
    const { url, signInUrl } = await useDevelopment()
    expect((await open(`${url}/sign-in${query}`)).status).toBe(401)
    expect((await open(signInUrl)).status).toBe(303)
  })

  test.each(['production', 'test'])('is not there with NODE_ENV=%s', async (NODE_ENV) => {
    const { url, signInUrl } = await useService({ NODE_ENV })
    expect(signInUrl).toBe(undefined)
    expect((await open(`${url}/sign-in?token=a`)).status).toBe(404)
  })

  test('signs in at another process than the one that printed it', async () => {
    const { databaseUrl, signInUrl } = await useDevelopment()
    const other = await useService({ NODE_ENV: 'development', DATABASE_URL: databaseUrl })
    const path = signInUrl?.match(/[/]sign-in.*/)?.[0]
    expect((await open(other.url + path)).status).toBe(303)
    expect((await open(signInUrl)).status).toBe(401)
  })

  test('ends after ten minutes', async () => {
    const { database, signInUrl } = await useDevelopment()
    const db = database.withSignal()
    const [link] = await db
      .selectFrom('credential')
      .where('kind', '=', 'link')
      .selectAll()
      .execute()
    const validMs = (link?.expires_at?.getTime() ?? 0) - (link?.created_at.getTime() ?? 0)
    expect(validMs / 60_000).toBeCloseTo(10, 1)
    await db
      .updateTable('credential')
      .set({ expires_at: new Date(0) })
      .execute()
    expect((await open(signInUrl)).status).toBe(401)
  })

  test('is no token of a client', async () => {
    const { url, signInUrl } = await useDevelopment()
    const token = new URL(signInUrl ?? '').searchParams.get('token')
    for (const each of [token, `ofs_${token}`, `ofl_${token}`]) {
      const headers = { authorization: `Bearer ${each}` }
      expect((await fetch(`${url}/v1/accounts/me`, { headers })).status).toBe(401)
    }
  })
})
