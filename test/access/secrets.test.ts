import { sql } from 'kysely'
import { io } from 'socket.io-client'
import { expect, onTestFinished, test } from 'vitest'
import { useDatabase } from '../support/database.ts'
import { AS_OPERATOR } from '../support/operator.ts'
import { useProcess } from '../support/process.ts'
import { until } from '../support/until.ts'

const PASSWORD = 'The first secret of Ann'
const NEW_PASSWORD = 'The second secret of Ann'
const WRONG_PASSWORD = 'A wrong secret of Ann'
const SHORT_PASSWORD = 'Ann:secret'
const UNKNOWN_KEY = `ofl_${'u'.repeat(43)}`
const MALFORMED_KEY = 'ofl_malformed-secret'
const BASIC = Buffer.from(`ann@example.com:${PASSWORD}`).toString('base64')

/** The service as a process that logs everything, and all that it logs and answers. */
async function useListenedService() {
  const { url: DATABASE_URL, database } = await useDatabase()
  const { url, output } = useProcess('test/support/fixture/main.ts', {
    DATABASE_URL,
    LOG_LEVEL: 'trace',
    LOG_FORMAT: 'json',
    RATE_LIMITS: 'off',
  })
  const base = await url()
  const answers: string[] = []
  const requestIds: string[] = []

  async function call(
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ) {
    const response = await fetch(base + path, {
      method,
      headers: {
        'content-type': 'application/json',
        'sec-fetch-site': 'same-origin',
        ...headers,
      },
      ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    })
    const text = await response.text()
    const [cookie = ''] = response.headers.getSetCookie()[0]?.split(';') ?? []
    requestIds.push(response.headers.get('x-request-id') ?? '')
    const shown = [...response.headers].filter(([name]) => name !== 'set-cookie')
    return { status: response.status, cookie, text, headers: shown.join('\n') }
  }

  return {
    db: database.withSignal(),
    base,
    output,
    answers,
    /** A call whose answer may have a secret. */
    call,
    /** A call whose answer must have no secret. */
    async listen(...parameters: Parameters<typeof call>) {
      const answer = await call(...parameters)
      answers.push(answer.text, answer.headers)
      return answer
    },
    untilLogged: () =>
      until(() => requestIds.every((id) => output().includes(id)), 'all requests are logged'),
  }
}

test('no secret is logged or answered, but for the answer that shows a key', async () => {
  const service = await useListenedService()
  const { db, call, listen, answers } = service
  const ann = { email: 'ann@example.com', password: PASSWORD }
  const { cookie: first } = await listen('POST', '/v1/accounts', ann)
  const { cookie: second } = await listen('POST', '/v1/sessions', ann)
  const as = { cookie: second }
  const newKey = { name: 'a key', scopes: ['account'] }
  const { key } = JSON.parse((await call('POST', '/v1/keys', newKey, as)).text)
  const bearer = (token: string) => ({ authorization: `Bearer ${token}` })
  for (const headers of [as, bearer(key)])
    for (const path of ['/v1/accounts/me', '/v1/sessions', '/v1/keys', `/v1/nothing?token=${key}`])
      await listen('GET', path, undefined, headers)

  for (const password of [WRONG_PASSWORD, SHORT_PASSWORD, [PASSWORD], { PASSWORD }]) {
    await listen('POST', '/v1/sessions', { ...ann, password })
    await listen('POST', '/v1/accounts', { ...ann, password })
    await listen('PUT', '/v1/accounts/me/password', { password, newPassword: SHORT_PASSWORD }, as)
  }
  await listen('POST', '/v1/sessions', `{"password":"${PASSWORD}"`)
  await listen('POST', '/v1/sessions', `password=${PASSWORD}`, {
    'content-type': 'application/x-www-form-urlencoded',
  })
  for (const authorization of [
    `Bearer ${UNKNOWN_KEY}`,
    `Bearer ${MALFORMED_KEY}`,
    `Bearer ${key} ${key}`,
    `Token ${key}`,
    `Basic ${BASIC}`,
    key,
  ])
    await listen('GET', '/v1/accounts/me', undefined, { authorization })
  await listen('GET', '/v1/accounts/me', undefined, { cookie: `session=${UNKNOWN_KEY}` })
  await listen('POST', '/v1/keys', newKey, { ...as, 'sec-fetch-site': 'cross-site' })
  for (const token of [UNKNOWN_KEY, MALFORMED_KEY, { PASSWORD }]) {
    const socket = io(service.base, { transports: ['websocket'], forceNew: true, auth: { token } })
    onTestFinished(() => void socket.close())
    const error = await new Promise<Error>((resolve) => socket.on('connect_error', resolve))
    answers.push(JSON.stringify(error), error.message)
  }
  const change = { password: PASSWORD, newPassword: NEW_PASSWORD }
  expect((await listen('PUT', '/v1/accounts/me/password', change, as)).status).toBe(204)
  await listen('GET', '/v1/jobs', undefined, AS_OPERATOR)
  const { text: requests } = await listen('GET', '/v1/ops/requests', undefined, AS_OPERATOR)
  expect(requests).toContain('"route":"/v1/accounts/me/password","status":204')
  expect(requests).toContain('update account set password_hash = ?')

  const accounts = await db.selectFrom('account').select('password_hash').execute()
  const credentials = await db.selectFrom('credential').select('token_hash').execute()
  const hashes = [...accounts, ...credentials].flatMap((row) => Object.values(row))
  // What fails without a reason for clients is logged with its cause.
  await sql`alter table account rename column email to mail`.execute(db)
  expect((await listen('POST', '/v1/accounts', ann)).status).toBe(500)
  await sql`alter table credential rename column token_hash to hash`.execute(db)
  expect(
    (await listen('GET', '/v1/accounts/me', undefined, bearer(`${key.slice(0, -3)}abc`))).status,
  ).toBe(500)

  await service.untilLogged()
  const heard = [service.output(), ...answers].join('\n')
  expect(heard).toContain('"subject":"account:2"')
  const secrets = [PASSWORD, NEW_PASSWORD, WRONG_PASSWORD, SHORT_PASSWORD, BASIC, key]
  const tokens = [first, second].map((cookie) => cookie.slice('session='.length))
  const sent = [UNKNOWN_KEY, MALFORMED_KEY, AS_OPERATOR.authorization.slice('Bearer '.length)]
  const all = [...secrets, ...tokens, ...sent, ...hashes.filter((hash) => hash !== null)]
  expect(all.filter((secret) => secret.length < 10)).toEqual([])
  expect(all.filter((secret) => heard.includes(secret))).toEqual([])
})
