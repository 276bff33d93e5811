import type { Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { request } from '../support/service.ts'
import { until } from '../support/until.ts'
import { expectGoodLooks } from './support/looks.ts'
import { button, panel, untilLive, untilText } from './support/panels.ts'
import { startSite } from './support/site.ts'

const PASSWORD = 'correct horse battery staple'
const OPERATORS_ONLY = ['event-loop', 'threads', 'jobs', 'process']
/** The browser's word on what the service answers to those who are not signed in. */
const UNKNOWN = /status of 401/

let site: Awaited<ReturnType<typeof startSite>>

beforeAll(async () => {
  site = await startSite({ NODE_ENV: 'development' })
})
afterAll(() => site.close())

const openAnonymous = (path?: string) =>
  site.open({ as: 'nobody', tolerate: [UNKNOWN], ...(path && { path }) })

/** Creates an account, and opens the page in its first session. */
async function openAsNewMember(email: string) {
  const { headers } = await request(`${site.url}/v1/accounts`, 'POST', {
    email,
    password: PASSWORD,
  })
  const [, session = ''] = headers.get('set-cookie')?.match(/^session=([^;]+)/) ?? []
  const page = await openAnonymous()
  await page.context().addCookies([{ name: 'session', value: session, url: site.url }])
  await page.reload()
  await untilText(who(page), new RegExp(`^${email}, member$`))
  const endSessions = () =>
    fetch(`${site.url}/v1/sessions`, {
      method: 'DELETE',
      headers: { cookie: `session=${session}`, origin: site.url },
    })
  return { page, endSessions }
}

const who = (page: Page) => page.locator('#account')
const form = (page: Page) => panel(page, 'sign-in')
const message = (page: Page) => form(page).getByRole('alert')
const focused = (page: Page): Promise<string> =>
  page.evaluate('document.activeElement.id || document.activeElement.type')

test('the link that a development start prints signs an operator in at one click, and once', async () => {
  const [, link = ''] = await site.printed(/"signInUrl":"(.*?)"/)
  const page = await openAnonymous(new URL(link).pathname + new URL(link).search)
  await untilText(who(page), /^operator@localhost, operator$/)
  expect(page.url()).toBe(`${site.url}/`)
  await untilText(panel(page, 'event-loop'), /% busy/)
  expect(await form(page).count()).toBe(0)

  const late = await openAnonymous(new URL(link).pathname + new URL(link).search)
  await untilText(late.locator('body'), /has been used.*restart the service/)
})

test('signing in and out needs the keyboard only, and the focus stays where it is of use', async () => {
  const { page: other } = await openAsNewMember('keys@example.com')
  await other.close()
  const page = await openAnonymous()
  await untilLive(page)
  for (let press = 0; press < 10 && (await focused(page)) !== 'email'; press++)
    await page.keyboard.press('Tab')
  await page.keyboard.type('keys@example.com')
  await page.keyboard.press('Tab')
  await page.keyboard.type(PASSWORD)
  await page.keyboard.press('Enter')
  await untilText(who(page), /^keys@example\.com, member$/)
  await untilLive(page)
  expect(await focused(page)).toBe('panels')

  await button(page, 'Sign out').focus()
  await page.keyboard.press('Enter')
  await untilText(message(page), /^Signed out\.$/)
  expect(await focused(page)).toBe('email')
  expect(await who(page).textContent()).toBe('')
})

test('a wrong password is said, and can be typed again at once', async () => {
  const page = await openAnonymous()
  await form(page).getByLabel('E-mail').fill('nobody@example.com')
  await form(page).getByLabel('Password').fill('wrong')
  await button(form(page), 'Sign in').click()
  await untilText(message(page), /^The address or the password is wrong$/)
  expect(await focused(page)).toBe('password')
  await expectGoodLooks(page, 'wrong-password')
})

describe('panels of operators', () => {
  test.each([
    ['nobody', /Sign in to use this\.$/],
    ['member', /Only operators may use this\. You are signed in as a member\.$/],
  ] as const)('say to %s what they take, and ask the service for nothing', async (as, reason) => {
    const page = await site.open({ as, tolerate: [UNKNOWN] })
    const asked: string[] = []
    page.on('request', (request) => asked.push(request.url()))
    page.on('websocket', (socket) =>
      socket.on('framesent', ({ payload }) => asked.push(`${payload}`)),
    )
    await page.reload()
    await untilLive(page)
    for (const id of OPERATORS_ONLY) await untilText(panel(page, id), reason)
    await expectGoodLooks(page, as)
    expect(asked.filter((text) => /\/v1\/(jobs|ops)|"subscribe","(jobs|ops)"/.test(text))).toEqual(
      [],
    )
  })
})

test('a session that ends elsewhere takes the page back to the form, which says so', async () => {
  const { page, endSessions } = await openAsNewMember('ended@example.com')
  await untilLive(page)
  await endSessions()
  await untilText(message(page), /^Your session has ended\. Sign in again\.$/)
  expect(await focused(page)).toBe('email')
  expect(await who(page).textContent()).toBe('')
  await expectGoodLooks(page, 'ended')
})

test('signing out in one tab is heard of in the others', async () => {
  const { page } = await openAsNewMember('tabs@example.com')
  const other = await page.context().newPage()
  await other.goto(site.url)
  await untilLive(other)
  await button(page, 'Sign out').click()
  await untilText(message(other), /^Your session has ended/)
  await until(async () => (await who(page).textContent()) === '', 'the first has signed out')
})
