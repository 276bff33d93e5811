import { once } from 'node:events'
import { get, type IncomingMessage } from 'node:http'
import { text } from 'node:stream/consumers'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Issue } from '../../../src/errors.ts'
import {
  metric,
  request,
  startRequest,
  startService,
  untilRunning,
  untilThreadsFree,
  useService,
} from '../../support/service.ts'
import { until } from '../../support/until.ts'

/** Minutes of work. */
const ENDLESS = 'from=0&to=50000000'
const THREADS = 2

let service: Awaited<ReturnType<typeof startService>>
let primes: string

beforeAll(async () => {
  service = await startService({ COMPUTE_THREADS: `${THREADS}`, REQUEST_TIMEOUT_MS: '60000' })
  primes = `${service.url}/v1/primes`
})
afterAll(() => service.close())

describe('counting', () => {
  test('answers with the range, the count, the way and the time it took', async () => {
    const { status, headers, body } = await request(`${primes}?from=100&to=1000&mode=offload`)
    expect([status, headers.get('content-type')]).toEqual([200, 'application/json'])
    expect(body).toEqual({
      from: 100,
      to: 1_000,
      count: 143,
      mode: 'offload',
      elapsedMs: expect.any(Number),
    })
    expect(body.elapsedMs).toBeGreaterThanOrEqual(0)
  })

  test('starts at 0 and goes to a thread unless told otherwise', async () => {
    expect((await request(`${primes}?to=1000`)).body).toMatchObject({
      from: 0,
      to: 1_000,
      count: 168,
      mode: 'offload',
    })
  })

  test('takes empty ranges and the very end', async () => {
    expect((await request(`${primes}?from=10&to=10`)).body.count).toBe(0)
    expect((await request(`${primes}?from=49999990&to=50000000`)).body.count).toBe(1)
  })
})

describe('what does not fit is 422 and named', () => {
  test.each([
    ['from=11&to=10', 'query.to'],
    ['to=50000001', 'query.to'],
    ['from=50000001&to=50000001', 'query.from'],
    ['from=-1&to=10', 'query.from'],
    ['to=1.5', 'query.to'],
    ['to=many', 'query.to'],
    ['from=1', 'query.to'],
    ['to=', 'query.to'],
    ['from=&to=10', 'query.from'],
    ['to=10&to=20', 'query.to'],
    ['to=10&mode=sieve', 'query.mode'],
    ['to=10&until=20', 'query.until'],
    ['to=10&distributed=1', 'query.distributed'],
    ['to=10&distributed=true&mode=inline', 'query.distributed'],
  ])('?%s: %s', async (query, path) => {
    const { status, body } = await request(`${primes}?${query}`)
    expect([status, body.code]).toEqual([422, 'invalid'])
    expect(body.errors.map((issue: { path: string }) => issue.path)).toContain(path)
  })
})

test.each([
  ['to=abc', [['query.to', 'Must be a whole number from 0 to 50000000']]],
  ['', [['query.to', 'Required']]],
  ['to=1&to=2', [['query.to', 'Must be a string']]],
  ['from=2&to=1', [['query.to', 'Must not be below from']]],
  ['to=1&mode=sieve', [['query.mode', 'Must be one of offload, inline']]],
])('?%s is refused for its one reason, in words of ours', async (query, reasons) => {
  const { body } = await request(`${primes}?${query}`)
  expect(body.errors.map(({ path, message }: Issue) => [path, message])).toEqual(reasons)
})

describe('mode=inline', () => {
  test('is forbidden, and the refusal says how to allow it', async () => {
    const { status, body } = await request(`${primes}?to=10&mode=inline`)
    expect([status, body.code]).toEqual([403, 'forbidden'])
    expect(body.detail).toContain('DEMO_INLINE=true')
  })

  test('counts the same where DEMO_INLINE=true allows it', async () => {
    const { url } = await useService({ DEMO_INLINE: 'true' })
    for (const range of ['from=0&to=50000', 'from=999000&to=1000000']) {
      const [offload, inline] = [
        await request(`${url}/v1/primes?${range}&mode=offload`),
        await request(`${url}/v1/primes?${range}&mode=inline`),
      ]
      expect([offload.body.mode, inline.body.mode]).toEqual(['offload', 'inline'])
      expect(inline.body.count).toBe(offload.body.count)
    }
  })
})

test('light requests are answered while every thread counts', async () => {
  const clients = Array.from({ length: THREADS }, () => startRequest(`${primes}?${ENDLESS}`))
  await untilRunning(service.opsUrl, THREADS)
  for (let index = 0; index < 20; index++)
    expect((await request(service.url, 'HEAD')).status).toBe(200)
  expect(await metric(service.opsUrl, 'compute_threads_busy')).toBe(THREADS)
  for (const client of clients) client.abort()
  await untilThreadsFree(service.opsUrl)
})

test('a client that goes away frees its thread for the next', async () => {
  const clients = Array.from({ length: THREADS }, () => startRequest(`${primes}?${ENDLESS}`))
  await untilRunning(service.opsUrl, THREADS)
  for (const client of clients) client.abort()
  await untilThreadsFree(service.opsUrl)
  expect((await request(`${primes}?to=100`)).body.count).toBe(25)
})

test('a client that goes away leaves its place in the queue', async () => {
  const clients = Array.from({ length: 5 }, () => startRequest(`${primes}?${ENDLESS}`))
  const queued = () => metric(service.opsUrl, 'compute_queued')
  // Of the first one, as many chunks as run.
  await until(async () => (await queued()) === THREADS + 4, 'four of them wait')
  for (const client of clients.splice(-2)) client.abort()
  await until(async () => (await queued()) === THREADS + 2, 'two of them are gone')
  expect(await metric(service.opsUrl, 'compute_threads_busy')).toBe(THREADS)
  for (const client of clients) client.abort()
  await until(async () => (await queued()) === 0, 'none waits')
  await untilThreadsFree(service.opsUrl)
})

test('a request that takes too long is told so, and frees its thread', async () => {
  const { url, opsUrl } = await useService({ REQUEST_TIMEOUT_MS: '300', COMPUTE_THREADS: '1' })
  const { status, body } = await request(`${url}/v1/primes?${ENDLESS}`)
  expect([status, body.code]).toEqual([504, 'deadline_exceeded'])
  await untilThreadsFree(opsUrl)
  // On a busy machine even a short count may not begin within so short a time.
  await until(
    async () => (await request(`${url}/v1/primes?to=100`)).body.count === 25,
    'the thread serves the next',
  )
})

/** Some 0.1 s of work for a thread. */
const COUNT = '/v1/primes?to=1400000'

describe('many counts at once', () => {
  test('that were accepted before the service stops are all served', async () => {
    const { url, opsUrl, stop } = await useService({
      COMPUTE_THREADS: '2',
      REQUEST_TIMEOUT_MS: '60000',
      DRAIN_TIMEOUT_MS: '60000',
    })
    const endless = startRequest(`${url}/v1/primes?${ENDLESS}`)
    await untilRunning(opsUrl, 2)
    const counts = Array.from({ length: 12 }, () => request(`${url}${COUNT}`))
    await until(
      // Of the endless one, as many chunks as run.
      async () => (await metric(opsUrl, 'compute_queued')) === 2 + 12,
      'all of them wait for a thread',
    )
    endless.abort()
    await stop()
    for (const { status, body } of await Promise.all(counts))
      expect([status, body.count]).toEqual([200, 107_126])
  })

  test('of one client leave the threads to another', async () => {
    const { url, opsUrl } = await useService({ COMPUTE_THREADS: '2', REQUEST_TIMEOUT_MS: '60000' })
    let served = 0
    const greedy = Array.from({ length: 16 }, () =>
      countFrom('127.0.0.2', url).then(() => served++),
    )
    await until(
      async () => (await metric(opsUrl, 'compute_queued')) >= 8,
      'many of them wait for a thread',
    )
    const before = served
    await countFrom('127.0.0.3', url)
    expect(served - before).toBeLessThan(4)
    await Promise.all(greedy)
  })
})

/** Asks from this address. */
async function countFrom(localAddress: string, url: string): Promise<void> {
  const { port } = new URL(url)
  const [response] = (await once(
    get({ host: '127.0.0.1', port, path: COUNT, localAddress, agent: false }),
    'response',
  )) as [IncomingMessage]
  expect(response.statusCode).toBe(200)
  await text(response)
}
