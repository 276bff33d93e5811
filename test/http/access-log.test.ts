import { pino } from 'pino'
import { expect, test } from 'vitest'
import { accessLog } from '../../src/http/access-log.ts'
import type { RequestRecord } from '../../src/http/exchange.ts'

const REQUEST: RequestRecord = {
  method: 'GET',
  route: '/v1/products/:id',
  status: 200,
  ms: 1,
  requestId: 'a',
  background: false,
}

/** At which level a request is logged, or nothing if it is not. */
function levelOf(request: Partial<RequestRecord>, level = 'debug'): string | undefined {
  const lines: string[] = []
  accessLog(pino({ level }, { write: (line) => void lines.push(line) }))({ ...REQUEST, ...request })
  expect(lines.length).toBeLessThanOrEqual(1)
  return lines[0] && pino.levels.labels[JSON.parse(lines[0]).level]
}

test("a user's request is logged at info", () => {
  expect(levelOf({})).toBe('info')
  expect(levelOf({ method: 'POST', status: 201 })).toBe('info')
})

test('a background read that succeeded is logged at debug, and so absent at the default level', () => {
  expect(levelOf({ background: true })).toBe('debug')
  expect(levelOf({ background: true, status: 304 })).toBe('debug')
  expect(levelOf({ background: true }, 'info')).toBeUndefined()
})

test.each(['/health/live', '/health/ready', '/metrics'])('a successful read of %s is logged at debug', (route) => {
  expect(levelOf({ route })).toBe('debug')
})

test.each([
  ['a background read that failed', { background: true, status: 404 }],
  ['a background read that its client left', { background: true, status: 499 }],
  ['a readiness probe that failed', { route: '/health/ready', status: 503 }],
  ['a change that claims to be in the background', { background: true, method: 'DELETE', status: 204 }],
])('%s is logged at info', (_, request) => {
  expect(levelOf(request)).toBe('info')
})
