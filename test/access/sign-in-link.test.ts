import { describe, expect, test, vi } from 'vitest'
import { SignInLink } from '../../src/access/sign-in-link.ts'
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

  test('ends after ten minutes', () => {
    vi.useFakeTimers()
    try {
      const [early, late] = [new SignInLink(), new SignInLink()]
      const tokenOf = (link: SignInLink) =>
        new URL(link.toUrl('http://a')).searchParams.get('token')
      vi.advanceTimersByTime(599_999)
      expect(early.use(tokenOf(early) ?? '')).toBe(true)
      vi.advanceTimersByTime(1)
      expect(late.use(tokenOf(late) ?? '')).toBe(false)
    } finally {
      vi.useRealTimers()
    }
  })
})
