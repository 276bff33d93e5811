import { io, type Socket } from 'socket.io-client'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { createAccount } from '../src/access/accounts.ts'
import { createCredential } from '../src/access/credentials.ts'
import { LIMITS } from '../src/access/limits.ts'
import { createDatabase } from './support/database.ts'
import { OPERATOR_AUTH } from './support/operator.ts'
import { startProcess } from './support/process.ts'
import { metric, request } from './support/service.ts'
import { until } from './support/until.ts'
import { hasValkey, startValkey } from './support/valkey.ts'

const HEALED_MS = 5_000

type Started = Awaited<ReturnType<typeof startProcesses>>

/** Two processes with clients and one that runs jobs, on one database and one Valkey. */
describe.runIf(hasValkey)('several processes', () => {
  let all: Started

  beforeAll(async () => {
    all = await startProcesses()
  })
  afterAll(() => all.close())

  test('push what a worker publishes to the clients of each, once and in order', async () => {
    const heard = await Promise.all(all.webs.map(({ url }) => listen(url, 'counts', 'counted')))
    const { status } = await request(`${all.webs[0].url}/v1/counts`, 'POST', { to: 200 })
    expect(status).toBe(202)
    await until(() => heard.every(({ length }) => length >= 200), 'all have arrived')
    const numbers = Array.from({ length: 200 }, (_, index) => ({ number: index + 1 }))
    for (const events of heard) expect(events).toEqual(numbers)
  })

  test('show each change of a job once to operators of each', async () => {
    const heard = await Promise.all(all.webs.map(({ url }) => listen(url, 'jobs', 'job.changed')))
    const { body } = await request(`${all.webs[0].url}/v1/counts`, 'POST', { to: 9_999 })
    const statesIn = (events: unknown[]) =>
      (events as { jobs: { id: string; state: string }[] }[])
        .flatMap(({ jobs }) => jobs)
        .filter(({ id }) => id === body.id)
        .map(({ state }) => state)
    const allAre = (state: string) =>
      until(() => heard.every((events) => statesIn(events).includes(state)), `all see ${state}`)
    await allAre('running')
    await request(`${all.webs[1].url}/v1/jobs/${body.id}`, 'DELETE')
    await allAre('cancelled')
    await until(() => metric(all.worker.opsUrl(), 'jobs_running').then((n) => n === 0), 'it ended')
    // What comes next comes last.
    const { body: next } = await request(`${all.webs[0].url}/v1/counts`, 'POST', { to: 1 })
    await until(
      () => heard.every((events) => JSON.stringify(events).includes(next.id)),
      'the next is shown',
    )
    for (const events of heard)
      expect(statesIn(events).sort()).toEqual(['cancelled', 'queued', 'running'])
  })

  test('end what a credential has opened within a second, when another one revokes it', async () => {
    const [one, other] = all.webs
    const db = all.database.withSignal()
    const accountId = await createAccount(db, {
      email: 'member@example.com',
      password_hash: null,
      role: 'member',
    })
    const { id, token } = await createCredential(db, { kind: 'key', accountId, name: 'revoked' })
    const session = await createCredential(db, { kind: 'session', accountId, name: 'test' })
    const as = { authorization: `Bearer ${token}` }
    const me = () => request(`${one.url}/v1/accounts/me`, 'GET', undefined, as)
    expect((await me()).status).toBe(200)
    const socket = await connect(one.url, { auth: { token } })
    const revoked = await request(`${other.url}/v1/keys/${id}`, 'DELETE', undefined, {
      authorization: `Bearer ${session.token}`,
    })
    expect(revoked.status).toBe(204)
    await until(() => socket.disconnected, 'the socket is closed', 1_000)
    expect((await me()).status).toBe(401)
  })

  test('count attempts together', async () => {
    const signIn = (web: number) =>
      request(`${all.webs[web % 2]?.url}/v1/sessions`, 'POST', {
        email: 'nobody@example.com',
        password: 'wrong password',
      })
    for (let attempt = 0; attempt < LIMITS.guess.points; attempt++)
      expect((await signIn(attempt)).status).toBe(401)
    expect([(await signIn(0)).status, (await signIn(1)).status]).toEqual([429, 429])
  })

  test.each([
    ['is killed', 'SIGKILL', undefined],
    ['hangs', 'SIGSTOP', 'SIGCONT'],
  ] as const)(
    'go on by themselves while Valkey %s, say so, and heal within 5 s of its return',
    async (_, fail, heal) => {
      const [one, other] = all.webs
      const [here, there] = [
        await listen(one.url, 'items', 'item.changed'),
        await listen(other.url, 'items', 'item.changed'),
      ]
      const sockets = [await connect(one.url), await connect(other.url)]
      const resyncs = [0, 0]
      sockets.forEach((socket, index) => {
        socket.on('server.resync', () => (resyncs[index] = (resyncs[index] ?? 0) + 1))
      })
      const linesBefore = all.output().split('\n').length

      all.valkey.send(fail)
      const processes = [...all.webs, all.worker]
      const allAre = async (up: number) => {
        const found = await Promise.all(
          processes.map(({ opsUrl }) => metric(opsUrl(), 'valkey_up')),
        )
        return found.every((value) => value === up)
      }
      await until(() => allAre(0), 'all notice', 10_000)
      for (const { opsUrl } of processes) {
        const { status, body } = await request(`${opsUrl()}/health/ready`)
        expect([status, body]).toEqual([200, { status: 'ok', valkey: 'unavailable' }])
      }
      const item = { price: '1.00', stock: 1 }
      await request(`${one.url}/v1/items`, 'POST', { ...item, name: `During ${fail}` })
      await until(() => here.length === 1, 'the own client hears of it')
      const { body } = await request(`${one.url}/v1/counts`, 'POST', { to: 1 })
      const isDone = () =>
        request(`${one.url}/v1/jobs/${body.id}`).then((job) => job.body.state === 'succeeded')
      await until(isDone, 'a job is done')
      expect(resyncs).toEqual([0, 0])
      expect(sockets.every(({ connected }) => connected)).toBe(true)

      if (heal) all.valkey.send(heal)
      else await all.valkey.restart()
      const isHealed = async () => resyncs.every((count) => count > 0) && (await allAre(1))
      await until(isHealed, 'all is healed, and clients know', HEALED_MS)
      await request(`${one.url}/v1/items`, 'POST', { ...item, name: `After ${fail}` })
      await until(() => there.length === 1 && here.length === 2, 'clients of both hear of the next')
      expect(sockets.every(({ connected }) => connected)).toBe(true)
      const lines = all.output().split('\n').slice(linesBefore)
      expect(lines.filter((line) => line.includes('Valkey fails')).length).toBeLessThan(20)
    },
  )
})

async function startProcesses() {
  const [{ url: DATABASE_URL, database, close }, valkey] = await Promise.all([
    createDatabase(),
    startValkey(),
  ])
  const started = (['web', 'web', 'worker'] as const).map((ROLE) =>
    startProcess('test/support/fixture/several.ts', {
      DATABASE_URL,
      VALKEY_URL: valkey.url,
      ROLE,
      LOG_LEVEL: 'info',
    }),
  )
  await until(() => started.every(({ opsUrl }) => opsUrl()), 'all listen')
  const [one, other, worker] = await Promise.all(
    started.map(async ({ url, ...process }, index) => ({
      ...process,
      url: index < 2 ? await url() : '',
    })),
  )
  if (!one || !other || !worker) throw new Error('Expected three processes')
  return {
    webs: [one, other] as const,
    worker,
    database,
    valkey,
    output: () => started.map(({ output }) => output()).join(''),
    async close() {
      for (const { child } of started) child.kill('SIGKILL')
      await Promise.all(started.map(({ exitCode }) => exitCode))
      valkey.send('SIGKILL')
      await close()
    },
  }
}

async function connect(url: string, options: Parameters<typeof io>[1] = {}): Promise<Socket> {
  const socket = io(url, { transports: ['websocket'], forceNew: true, ...options })
  onTestFinished(() => void socket.close())
  await until(() => socket.connected, 'it is connected')
  return socket
}

/** All events of a name that a subscriber of the topic receives. */
async function listen(url: string, topic: string, name: string): Promise<unknown[]> {
  const socket = await connect(url, OPERATOR_AUTH)
  const heard: unknown[] = []
  socket.on(name, (payload) => heard.push(payload))
  expect(await socket.timeout(5_000).emitWithAck('subscribe', topic)).toEqual({ ok: true })
  return heard
}
