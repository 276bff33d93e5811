import { pino } from 'pino'
import { expect, onTestFinished, test, vi } from 'vitest'
import { accessLog, type RequestRecord } from '../../src/http/context.ts'

const REQUEST: RequestRecord = {
  method: 'GET',
  route: '/v1/items/:id',
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

test.each(['/health/live', '/health/ready', '/metrics'])(
  'a successful read of %s is logged at debug',
  (route) => {
    expect(levelOf({ route })).toBe('debug')
  },
)

test.each([
  ['a background read that failed', { background: true, status: 404 }],
  ['a background read that its client left', { background: true, status: 499 }],
  ['a readiness probe that failed', { route: '/health/ready', status: 503 }],
  [
    'a change that claims to be in the background',
    { background: true, method: 'DELETE', status: 204 },
  ],
])('%s is logged at info', (_, request) => {
  expect(levelOf(request)).toBe('info')
})

test('of many refused requests the first is logged at once, and the others as one line with their number', () => {
  vi.useFakeTimers()
  onTestFinished(() => void vi.useRealTimers())
  const lines: object[] = []
  const log = accessLog(
    pino({ base: null }, { write: (line) => void lines.push(JSON.parse(line)) }),
  )
  for (let request = 0; request < 1_000; request++)
    log({ ...REQUEST, status: 503, requestId: String(request) })
  log({ ...REQUEST, method: 'POST', status: 503 })
  log(REQUEST)
  vi.advanceTimersByTime(5_000)
  expect(lines).toMatchObject([
    { method: 'GET', status: 503, requestId: '0', msg: 'request' },
    { method: 'POST', status: 503, msg: 'request' },
    { status: 200, msg: 'request' },
    { method: 'GET', route: '/v1/items/:id', status: 503, refused: 999, msg: 'requests' },
  ])
  log({ ...REQUEST, status: 503, requestId: 'next' })
  expect(lines.at(-1)).toMatchObject({ requestId: 'next' })
})
