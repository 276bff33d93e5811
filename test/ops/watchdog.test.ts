import { createConnection } from 'mysql2/promise'
import { expect, test } from 'vitest'
import { useFixture } from '../support/fixture/features.ts'
import { metric, request, startRequest } from '../support/service.ts'
import { until } from '../support/until.ts'

test('a service whose connections are all busy, and more requests wait for one, is ready', async () => {
  const { url, opsUrl, databaseUrl } = await useFixture({
    DATABASE_POOL_SIZE: '2',
    REQUEST_TIMEOUT_MS: '10000',
  })
  const { body } = await request(`${url}/v1/items`, 'POST', {
    name: 'Locked lamp',
    price: '1.00',
    stock: 1,
  })
  const other = await createConnection({ uri: databaseUrl })
  await other.query('lock tables item write')
  const requests = Array.from({ length: 12 }, () => startRequest(`${url}/v1/items/${body.id}`))
  const waiting = () => metric(opsUrl, 'database_pool_waiting')
  await until(async () => (await waiting()) >= 10, 'requests wait for a connection')
  expect((await request(`${opsUrl}/health/ready`)).status).toBe(200)
  for (const controller of requests) controller.abort()
  await other.query('unlock tables')
  await other.end()
})
