import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { insertJob, toNewJob } from '@offloop/jobs/enqueue'
import { findJob } from '@offloop/jobs/query'
import { io } from 'socket.io-client'
import { describe, expect, onTestFinished, test } from 'vitest'
import { transaction } from '../src/db/transaction.ts'
import { createEmptyDatabase, useDatabase } from './support/database.ts'
import { idle } from './support/fixture/work.ts'
import { useProcess } from './support/process.ts'
import { connectTo } from './support/raw-http.ts'
import { metric, request, untilRunning } from './support/service.ts'
import { until } from './support/until.ts'

/** Half a second of work for one thread. */
const HEAVY = '/v1/work?ms=500'
/** More than anyone waits for. */
const ENDLESS = '/v1/work?ms=600000'

/**
 * On a machine whose cores others have, half a second of a thread's work takes longer than a stop
 * usually waits.
 */
const PATIENT = { DRAIN_TIMEOUT_MS: '30000' }

async function useMain(env: NodeJS.ProcessEnv = {}, nodeOptions: string[] = [], maxFiles?: number) {
  const { url: DATABASE_URL, database } = await useDatabase()
  const main = useProcess(
    'test/support/fixture/main.ts',
    { DATABASE_URL, REQUEST_TIMEOUT_MS: '20000', ...env },
    nodeOptions,
    maxFiles,
  )
  return { ...main, database }
}

const isRefused = (url: string) =>
  fetch(url).then(
    () => false,
    () => true,
  )

describe('SIGTERM', () => {
  test('lets requests in flight finish, refuses new ones and exits with 0', async () => {
    const { child, url: listening, opsUrl, exitCode, output } = await useMain(PATIENT)
    const url = await listening()
    const heavy = request(url + HEAVY)
    await untilRunning(opsUrl(), 1)
    child.kill('SIGTERM')
    await until(() => isRefused(url), 'new connections are refused')
    const { status, headers, body } = await heavy
    expect([status, body.ms, headers.get('connection')]).toEqual([200, 500, 'close'])
    expect(await exitCode).toBe(0)
    expect(output()).toContain('"msg":"stopped"')
  })

  test('turns readiness to 503 on the ops port, which is open to the end', async () => {
    const { child, url: listening, opsUrl, exitCode } = await useMain(PATIENT)
    const url = await listening()
    const ops = opsUrl()
    await until(async () => (await request(`${ops}/health/ready`)).status === 200, 'it is ready')
    expect((await request(`${ops}/health/ready`)).body).toEqual({ status: 'ok' })
    const heavy = request(url + HEAVY)
    await untilRunning(opsUrl(), 1)
    child.kill('SIGTERM')
    await until(() => isRefused(url), 'new connections are refused')
    const { status, body } = await request(`${ops}/health/ready`)
    expect([status, body.detail]).toEqual([503, 'The service is stopping'])
    expect((await request(`${ops}/health/live`)).status).toBe(200)
    expect((await heavy).status).toBe(200)
    expect(await exitCode).toBe(0)
  })

  test('with DRAIN_DELAY_MS accepts requests for that long, while readiness says 503, answers ask clients to close, and jobs are left to others', async () => {
    const {
      child,
      url: listening,
      opsUrl,
      exitCode,
      database,
    } = await useMain({ DRAIN_DELAY_MS: '3000' })
    const url = await listening()
    const ops = opsUrl()
    const startedAt = performance.now()
    child.kill('SIGTERM')
    await until(
      async () => (await request(`${ops}/health/ready`)).status === 503,
      'it is not ready',
    )
    expect((await request(`${ops}/health/ready`)).body.detail).toBe('The service is stopping')
    const { id } = await transaction(database.withSignal(), (trx) =>
      insertJob(trx, toNewJob(idle, null)),
    )
    const { status, headers } = await request(`${url}/v1/work?ms=1`)
    expect([status, headers.get('connection')]).toEqual([200, 'close'])
    await until(() => isRefused(url), 'new connections are refused')
    expect(performance.now() - startedAt).toBeGreaterThan(2_900)
    expect(await exitCode).toBe(0)
    expect(await findJob(database.withSignal(), id)).toMatchObject({ state: 'queued', attempt: 0 })
  })

  test('serves what comes on a connection that was idle, and asks to close it; it closes those that stay idle', async () => {
    const { child, url: listening, exitCode } = await useMain()
    const url = await listening()
    const [used, idle, unused] = await Promise.all([connectTo(url), connectTo(url), connectTo(url)])
    const get = 'GET /v1/items?limit=1 HTTP/1.1\r\nHost: a\r\n\r\n'
    for (const socket of [used, idle]) {
      socket.write(get)
      expect(String((await once(socket, 'data'))[0])).toContain('Connection: keep-alive')
    }
    const closed = Promise.all([once(idle, 'close'), once(unused, 'close')])
    child.kill('SIGTERM')
    await until(() => isRefused(url), 'new connections are refused')
    used.write(get)
    const [answer] = await once(used, 'data')
    expect(String(answer)).toMatch(/^HTTP\/1.1 200 .*Connection: close/s)
    await closed
    expect(await exitCode).toBe(0)
  })

  test('answers all requests that a client has pipelined, and asks to close with the last of them', async () => {
    const { child, url: listening, opsUrl, exitCode } = await useMain(PATIENT)
    const url = await listening()
    const socket = await connectTo(url)
    let heard = ''
    socket.on('data', (chunk) => {
      heard += chunk
    })
    socket.write(
      `GET ${HEAVY} HTTP/1.1\r\nHost: a\r\n\r\n${'GET /v1/items?limit=1 HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(20)}`,
    )
    await untilRunning(opsUrl(), 1)
    child.kill('SIGTERM')
    await once(socket, 'close')
    expect(heard.match(/HTTP\/1.1 200/g)).toHaveLength(21)
    expect(heard.match(/Connection: close/g)).toHaveLength(1)
    expect(await exitCode).toBe(0)
  })

  test('is logged with what it waits for', async () => {
    const {
      child,
      url: listening,
      opsUrl,
      exitCode,
      output,
    } = await useMain({
      ...PATIENT,
      LOG_LEVEL: 'info',
    })
    const url = await listening()
    const heavy = request(url + HEAVY)
    await untilRunning(opsUrl(), 1)
    child.kill('SIGTERM')
    expect((await heavy).status).toBe(200)
    expect(await exitCode).toBe(0)
    const line = output()
      .split('\n')
      .find((text) => text.includes('"msg":"stopping"'))
    expect(JSON.parse(line ?? '')).toMatchObject({
      signal: 'SIGTERM',
      requests: 1,
      jobs: 0,
      sockets: 0,
    })
  })

  test('tells the tasks that run or wait shortly before the drain deadline, so that all are answered', async () => {
    const {
      child,
      url: listening,
      opsUrl,
      exitCode,
    } = await useMain({ DRAIN_TIMEOUT_MS: '4000', REQUEST_TIMEOUT_MS: '600000' })
    const url = await listening()
    const tasks = Array.from({ length: 6 }, () => request(url + ENDLESS))
    await untilRunning(opsUrl(), 1)
    await until(async () => (await metric(opsUrl(), 'compute_queued')) >= 5, 'the others wait')
    child.kill('SIGTERM')
    for (const { body } of await Promise.all(tasks))
      expect(body).toMatchObject({
        status: 503,
        code: 'unavailable',
        detail: 'The service is stopping',
      })
    expect(await exitCode).toBe(0)
  })

  test('tells connected sockets before it closes them', async () => {
    const { child, url: listening, exitCode } = await useMain()
    const socket = io(await listening(), { transports: ['websocket'], reconnection: false })
    onTestFinished(() => void socket.close())
    const heard: string[] = []
    socket
      .on('server.stopping', () => heard.push('server.stopping'))
      .on('disconnect', (reason) => heard.push(reason))
    await until(() => socket.connected, 'it is connected')
    child.kill('SIGTERM')
    await until(() => heard.length === 2, 'it is told and closed')
    expect(heard).toEqual(['server.stopping', 'transport close'])
    expect(await exitCode).toBe(0)
  })

  test('sent twice exits at once', async () => {
    const { child, url: listening, opsUrl, exitCode, output } = await useMain()
    const url = await listening()
    const running = request(url + ENDLESS).catch(() => 'cut')
    await untilRunning(opsUrl(), 1)
    child.kill('SIGTERM')
    await until(() => isRefused(url), 'it stops')
    const again = setInterval(() => child.kill('SIGTERM'), 50)
    expect(await exitCode).toBe(1)
    clearInterval(again)
    expect(await running).toBe('cut')
    expect(output()).not.toContain('"msg":"stopped"')
  })
})

test.runIf(process.platform === 'linux')(
  'more clients than there are file descriptors for cannot end the service',
  async () => {
    const { child, url: listening, opsUrl, output } = await useMain({}, [], 150)
    const url = await listening()
    const ops = opsUrl()
    const { hostname, port } = new URL(url)
    const sockets = Array.from({ length: 400 }, () => connect(Number(port), hostname))
    onTestFinished(() => {
      for (const socket of sockets) socket.destroy()
    })
    const answered = new Set<Socket>()
    for (const socket of sockets) {
      socket.on('error', () => {}).on('data', () => answered.add(socket))
      socket.write('GET /v1/items?limit=1 HTTP/1.1\r\nHost: a\r\n\r\n')
    }
    await until(
      () => sockets.filter(({ closed }) => closed).length > 200,
      'those for whom there is no room are disconnected',
    )
    await until(() => answered.size > 10, 'the others are served')
    for (const path of ['/health/live', '/health/ready', '/metrics'])
      expect([path, (await fetch(ops + path)).status]).toEqual([path, 200])
    for (const socket of sockets) socket.destroy()
    await until(async () => !(await isRefused(url)), 'there is room again')
    expect((await request(`${url}/v1/items`)).status).toBe(200)
    expect([child.exitCode, output()]).toEqual([null, expect.not.stringContaining('EMFILE')])
  },
)

describe('a blocked event loop', () => {
  test('is logged once with its length, function, line and request, and counted', async () => {
    // Far above how long a busy machine itself delays a process.
    const { url: listening, opsUrl, output, printed } = await useMain({ WATCHDOG_MS: '500' })
    const url = await listening()
    const { headers, body } = await request(`${url}/v1/work/inline?ms=1500`)
    await request(url + HEAVY)
    await printed(/The event loop was blocked/)
    const [block, ...others] = output()
      .split('\n')
      .filter((line) => line.includes('The event loop was blocked'))
      .map((line) => JSON.parse(line))
    expect(block).toMatchObject({
      level: 40,
      function: 'spin',
      file: 'test/support/fixture/tasks.ts',
      route: '/v1/work/inline',
      requestId: headers.get('x-request-id'),
    })
    expect(block.blockedMs).toBeGreaterThan(500)
    expect(block.blockedMs).toBeLessThan(2 * body.elapsedMs)
    expect(others).toEqual([])
    expect(await metric(opsUrl(), 'nodejs_eventloop_blocks_total')).toBe(1)
    expect(await metric(opsUrl(), 'nodejs_eventloop_blocked_seconds_total')).toBeCloseTo(
      block.blockedMs / 1_000,
    )
  })

  test('is not reported with WATCHDOG_MS=0', async () => {
    const {
      url: listening,
      opsUrl,
      output,
    } = await useMain({
      WATCHDOG_MS: '0',
      LOG_LEVEL: 'info',
    })
    const url = await listening()
    await request(`${url}/v1/work/inline?ms=500`)
    expect(await metric(opsUrl(), 'nodejs_eventloop_blocks_total')).toBe(0)
    expect((await request(`${opsUrl()}/health/live`)).status).toBe(200)
    expect(output()).not.toContain('was blocked')
  })
})

describe('an uncaught exception', () => {
  test.each([
    ['a rejected promise', `Promise.reject(new Error('boom'))`],
    ['an exception', `(() => { throw new Error('boom') })()`],
  ])('%s is logged, and the service stops in order with exit code 1', async (_, code) => {
    const script = `process.once('SIGUSR2', () => { ${code} })`
    const {
      child,
      url: listening,
      opsUrl,
      exitCode,
      output,
    } = await useMain(PATIENT, ['--import', `data:text/javascript,${encodeURIComponent(script)}`])
    const url = await listening()
    const heavy = request(url + HEAVY)
    await untilRunning(opsUrl(), 1)
    child.kill('SIGUSR2')
    expect((await heavy).status).toBe(200)
    expect(await exitCode).toBe(1)
    expect(output()).toMatch(/"level":60.*boom/)
    expect(output()).toContain('"msg":"stopped"')
  })
})

test('without its V8 flags the service says at start which command has them', async () => {
  const { url: DATABASE_URL } = await useDatabase()
  const env = { DATABASE_URL, COMPUTE_THREADS: '1', PORT: '0', OPS_PORT: 'off' }
  const child = spawn(process.execPath, ['src/main.ts'], { env })
  onTestFinished(() => void child.kill('SIGKILL'))
  let output = ''
  child.stdout.on('data', (lines) => {
    output += lines
  })
  await until(() => output.includes('"msg":"listening"'), 'it listens')
  expect(output.match(/"missing":(.*?),"msg":"(.*?)"/)?.slice(1)).toEqual([
    '["--no-allocation-site-pretenuring","--no-turboshaft-loop-unrolling"]',
    'V8 flags are missing: start with `bin/node src/main.ts`',
  ])
})

describe('what keeps the service from starting is one clear line and a non-zero exit', () => {
  const failing = async (env: NodeJS.ProcessEnv) => {
    const { exitCode, output } = useProcess('src/main.ts', env)
    const code = await exitCode
    return [code, output().trim()]
  }

  test('a port in use', async () => {
    const { url: DATABASE_URL } = await useDatabase()
    const other = createServer().listen(0, '127.0.0.1')
    await once(other, 'listening')
    onTestFinished(() => void other.close())
    const { port } = other.address() as AddressInfo
    expect(await failing({ DATABASE_URL, PORT: String(port) })).toEqual([
      1,
      `Port ${port} is in use: stop what listens there, or set PORT to another one`,
    ])
  })

  test('an ops port in use, before anything else is open', async () => {
    const other = createServer().listen(0, '127.0.0.1')
    await once(other, 'listening')
    onTestFinished(() => void other.close())
    const { port } = other.address() as AddressInfo
    expect(
      await failing({ DATABASE_URL: 'mysql://root@127.0.0.1:1/shop', OPS_PORT: String(port) }),
    ).toEqual([
      1,
      `Port ${port} is in use: stop what listens there, or set OPS_PORT to another one`,
    ])
  })

  test('a database that cannot be reached', async () => {
    const [code, output] = await failing({ DATABASE_URL: 'mysql://root@127.0.0.1:1/shop' })
    expect(code).toBe(1)
    expect(output).toMatch(/^Cannot use the database 127\.0\.0\.1:1\/shop: .*ECONNREFUSED.*$/)
  })

  test('a database that lacks a migration', async () => {
    const { url: DATABASE_URL, drop } = await createEmptyDatabase()
    onTestFinished(drop)
    expect(await failing({ DATABASE_URL })).toEqual([
      1,
      expect.stringMatching(
        /^The database lacks \d{3}-[a-z-]+(, \d{3}-[a-z-]+)*: run `npm run migrate up` first$/,
      ),
    ])
  })

  test('bad configuration, every variable of it', async () => {
    const [code, output] = await failing({ PORT: 'three', LOG_LEVEL: 'loud' })
    expect(code).toBe(1)
    expect(output).toMatch(
      /^Bad configuration:\n {2}DATABASE_URL: is not set.*\n {2}PORT: .*\n {2}LOG_LEVEL: .*$/,
    )
  })
})
