import { ProfileError } from '@offloop/loopwatch/profile'
import { DeadlineError, OverloadedError, PoolClosedError } from '@offloop/workpool/errors'
import { pino } from 'pino'
import { expect, onTestFinished, test, vi } from 'vitest'
import { AppError, overloaded } from '../../src/errors.ts'
import { requestContext } from '../../src/http/context.ts'
import { errorHandler } from '../../src/http/errors.ts'
import { createRouter } from '../../src/http/router.ts'

/** An app that fails as its caller says, and the lines that it logs. */
function failingApp() {
  const lines: Record<string, unknown>[] = []
  const log = pino(
    { level: 'warn' },
    { write: (line: string) => void lines.push(JSON.parse(line)) },
  )
  const app = createRouter()
  app.onError(errorHandler(log))
  app.use(requestContext(60_000, () => {}))
  const errors: Record<string, () => unknown> = {
    busy: () => overloaded('The database is busy'),
    away: () =>
      new AppError('unavailable', 'The database cannot be reached', {
        cause: new Error('connect ECONNREFUSED'),
      }),
    late: () => new AppError('deadline_exceeded', 'No answer within 5 ms'),
    'profile-busy': () => new ProfileError('conflict', 'Another profile is being recorded'),
    'profile-lost': () => new ProfileError('unavailable', 'The thread compute-1 exited'),
    'pool-overloaded': () => new OverloadedError(5_000),
    'pool-closed': () => new PoolClosedError(),
    'pool-late': () => new DeadlineError('The task took longer than 5 ms'),
  }
  app.get('/:kind', (c) => {
    throw errors[c.req.param('kind')]?.()
  })
  return { app, lines }
}

test('refusals are logged with their reason: the first at once, the others as one line with their number', async () => {
  vi.useFakeTimers()
  onTestFinished(() => void vi.useRealTimers())
  const { app, lines } = failingApp()
  for (let request = 0; request < 100; request++)
    expect((await app.request('/busy')).status).toBe(503)
  for (let request = 0; request < 3; request++)
    expect((await app.request('/away')).status).toBe(503)
  const busy = { level: 40, code: 'overloaded', msg: 'The database is busy' }
  const away = {
    level: 40,
    code: 'unavailable',
    msg: 'The database cannot be reached',
    reason: 'connect ECONNREFUSED',
  }
  const withId = { requestId: expect.any(String) }
  expect(lines).toMatchObject([
    { ...busy, ...withId },
    { ...away, ...withId },
  ])
  vi.advanceTimersByTime(5_000)
  expect(lines.slice(2)).toMatchObject([
    { ...busy, refused: 99 },
    { ...away, refused: 2 },
  ])

  vi.advanceTimersByTime(60_000)
  await app.request('/busy')
  vi.advanceTimersByTime(60_000)
  expect(lines.slice(4)).toMatchObject([{ ...busy, ...withId }])
})

test('each missed deadline has a line of its own', async () => {
  const { app, lines } = failingApp()
  for (let request = 0; request < 3; request++) await app.request('/late')
  expect(lines.map(({ code }) => code)).toEqual(new Array(3).fill('deadline_exceeded'))
})

test.each([
  ['profile-busy', 409, 'conflict', /^none$/],
  ['profile-lost', 503, 'unavailable', /^none$/],
  ['pool-overloaded', 503, 'overloaded', /^([5-9]|10)$/],
  ['pool-closed', 503, 'unavailable', /^1$/],
  ['pool-late', 504, 'deadline_exceeded', /^none$/],
])(
  'an error of a package has a code of the contract: %s',
  async (kind, status, code, retryAfter) => {
    const response = await failingApp().app.request(`/${kind}`)
    expect([response.status, await response.json()]).toMatchObject([status, { code }])
    expect(response.headers.get('Retry-After') ?? 'none').toMatch(retryAfter)
  },
)
