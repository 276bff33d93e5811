import { expect, test } from 'vitest'
import { serveApi } from '../../support/api.ts'

const { send, defaultsOf } = serveApi()

test('the OpenAPI document has the defaults of primes, and answers fit it', async () => {
  expect(defaultsOf('countPrimes')).toEqual({
    from: 0,
    mode: 'offload',
    distributed: false,
  })
  expect((await send('countPrimes', { query: 'to=100' })).status).toBe(200)
  expect((await send('countPrimes', { query: 'to=100&mode=inline' })).status).toBe(403)
})
