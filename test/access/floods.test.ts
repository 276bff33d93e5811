import { Pool } from 'undici'
import { expect, onTestFinished, test } from 'vitest'
import { LIMITS } from '../../src/access/limits.ts'
import { useFixture } from '../support/fixture/features.ts'

const CONNECTIONS = 100

/** Sends `total` requests from many connections of one address, and counts their statuses. */
async function flood(url: string, path: string, total: number, toBody: (index: number) => object) {
  const pool = new Pool(url, { connections: CONNECTIONS })
  onTestFinished(() => pool.close())
  const statuses = new Map<number, number>()
  let sent = 0
  const client = async () => {
    while (sent < total) {
      const { statusCode, body } = await pool.request({
        path,
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(toBody(sent++)),
      })
      await body.dump()
      statuses.set(statusCode, (statuses.get(statusCode) ?? 0) + 1)
    }
  }
  await Promise.all(Array.from({ length: CONNECTIONS }, client))
  return statuses
}

const PASSWORD = 'correct horse battery staple'

test('a thousand log-ins at once are checked or refused, and light requests are served', async () => {
  const { url } = await useFixture()
  let isFlooding = true
  const light = (async () => {
    const statuses = new Set<number>()
    while (isFlooding) statuses.add((await fetch(`${url}/v1/items`)).status)
    return statuses
  })()
  const email = (index: number) => `person${index % 10}@example.com`
  const statuses = await flood(url, '/v1/sessions', 1_000, (index) => ({
    email: email(index),
    password: PASSWORD,
  }))
  isFlooding = false
  expect(await light).toEqual(new Set([200]))
  expect(statuses.get(401)).toBeGreaterThan(0)
  expect([...statuses.keys()].filter((status) => ![401, 503].includes(status))).toEqual([])
}, 60_000)

test('ten thousand sign-ups from one address make as many accounts as its limit lets', async () => {
  const { url, database } = await useFixture({ RATE_LIMITS: 'on' })
  const statuses = await flood(url, '/v1/accounts', 10_000, (index) => ({
    email: `bot${index}@example.com`,
    password: PASSWORD,
  }))
  expect([...statuses.keys()].filter((status) => ![201, 429, 503].includes(status))).toEqual([])
  const accounts = await database.withSignal().selectFrom('account').select('id').execute()
  // One is the operator's of every test.
  expect(accounts.length - 1).toBe(statuses.get(201))
  // The limit resets while the test runs, if it is slow.
  expect(statuses.get(201)).toBeLessThanOrEqual(2 * LIMITS.login.points)
}, 60_000)
