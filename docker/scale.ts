// feature: products, reports
import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { io } from 'socket.io-client'
import type { Stack } from './stack.ts'

const REQUEST_TIMEOUT_MS = 15_000
const REPORT_TIMEOUT_MS = 60_000
/** A job of a killed process waits for the end of its lease, and for its next attempt. */
const JOBS_TIMEOUT_MS = 240_000
/** Health checks start a process each, and take their time on a busy machine. */
const HEALTHY_TIMEOUT_MS = 180_000
const RECOVERY_TIMEOUT_MS = 5_000
const SOCKETS = 8
const MAX_REPORTS = 20
const READERS = 8
const THINK_MS = 10
const UPLOAD_EVERY_MS = 300
/** That many requests show that the others serve. */
const ENOUGH = 100

const CSV = () => `id,region\n${crypto.randomUUID()},north\n`

type Headers = Record<string, string>
type Check = (name: string, prove: () => Promise<void>) => Promise<boolean>

/** What `docker compose --profile scale up --scale web=2 --scale worker=2` promises. */
export async function checkScale(stack: Stack, operator: Headers, check: Check): Promise<void> {
  const service = new Service(stack.url, operator)
  const isUp = await check(
    '--profile scale: two web processes, two workers and nginx',
    async () => {
      await stack.up(['--scale', 'web=2', '--scale', 'worker=2'])
      await stack.eventually('nginx leads to them', async () => (await service.get('/v1/jobs')).ok)
      assert.ok(!(await stack.services()).includes('app'), 'the one process is there, too')
    },
  )
  if (!isUp) return
  await check('nginx passes on request ids and addresses of clients', () =>
    passesOn(stack, service),
  )
  await check('a job that a worker ran is seen by both web processes', () =>
    seesJob(stack, service),
  )
  await check('every worker pushes to every web process', () => pushesToAll(stack, service))
  await check('kill -9 of any container under load loses nothing that was accepted', () =>
    survivesKills(stack, service),
  )
  await check('without a web process, nginx answers in the words of the service', () =>
    saysUnavailable(stack, service),
  )
}

/** The API behind nginx, as an operator. */
class Service {
  readonly url: string
  readonly headers: Headers

  constructor(url: string, headers: Headers) {
    this.url = url
    this.headers = headers
  }

  get(path: string, headers: Headers = {}) {
    return this.#send(path, { headers })
  }

  async read<T>(path: string): Promise<T> {
    const response = await this.get(path)
    assert.equal(response.status, 200, path)
    return (await response.json()) as T
  }

  /** Returns the id of the report, which is its job's, too. */
  async upload(csv: string): Promise<string> {
    const headers = { 'Content-Type': 'text/csv' }
    const response = await this.#send('/v1/reports', { method: 'POST', headers, body: csv })
    const body = (await response.json()) as { id: string }
    assert.equal(response.status, 202, JSON.stringify(body))
    return body.id
  }

  async isFinished(id: string): Promise<boolean> {
    const { state } = await this.read<{ state: string }>(`/v1/reports/${id}`)
    assert.ok(!['failed', 'cancelled'].includes(state), `report ${id} ${state}`)
    return state === 'succeeded'
  }

  /** Which process ran a job last. */
  async workerOf(id: string): Promise<string | undefined> {
    const { attempts } = await this.read<{ attempts: { worker: string }[] }>(`/v1/jobs/${id}`)
    return attempts.at(-1)?.worker
  }

  async createProduct(): Promise<Product> {
    return this.#write('POST', '/v1/products', {
      name: `Scaled ${crypto.randomUUID()}`,
      price: '1.00',
      stock: 0,
    })
  }

  async changeProduct(id: number): Promise<Product> {
    return this.#write('PATCH', `/v1/products/${id}`, { stock: Math.floor(Math.random() * 1_000) })
  }

  async #write(method: string, path: string, body: object): Promise<Product> {
    const headers = { 'Content-Type': 'application/json' }
    const response = await this.#send(path, { method, headers, body: JSON.stringify(body) })
    const product = (await response.json()) as Product
    assert.ok(response.ok, `${method} ${path}: ${response.status} ${JSON.stringify(product)}`)
    return product
  }

  #send(path: string, { headers, ...request }: RequestInit & { headers: Headers }) {
    return fetch(this.url + path, {
      headers: { ...this.headers, ...headers },
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
      ...request,
    })
  }
}

interface Product {
  id: number
  version: number
}

async function passesOn(stack: Stack, service: Service) {
  const requestId = `scale-${crypto.randomUUID()}`
  const claimed = '203.0.113.7'
  const response = await service.get('/v1/jobs', {
    'X-Request-Id': requestId,
    'X-Forwarded-For': claimed,
  })
  assert.equal(response.headers.get('x-request-id'), requestId)
  const { client } = await stack.line('web', (line) => line['requestId'] === requestId)
  const addresses = await stack.inspect(
    'nginx',
    'range .NetworkSettings.Networks}}{{.IPAddress}} {{.Gateway}}{{end',
  )
  const [nginx, gateway] = addresses.split(' ')
  assert.ok(![nginx, claimed].includes(String(client)), `by ${nginx}`)
  assert.equal(client, gateway)
}

async function seesJob(stack: Stack, service: Service) {
  const id = await service.upload(CSV())
  await stack.eventually('it has finished', () => service.isFinished(id), REPORT_TIMEOUT_MS)
  const [host] = (await service.workerOf(id))?.split(':') ?? []
  const workers = await stack.containers('worker')
  assert.ok(
    workers.some((container) => host && container.startsWith(host)),
    `${host} ran it, which is no worker`,
  )
  for (const container of await stack.containers('web')) {
    const path = `http://127.0.0.1:${new URL(service.url).port}/v1/jobs/${id}`
    const script = `fetch('${path}', { headers: ${JSON.stringify(service.headers)} })
      .then((answer) => answer.json()).then(({ state }) => console.log(state))`
    assert.equal(await stack.docker('exec', container, 'node', '--eval', script), 'succeeded')
  }
}

async function pushesToAll(stack: Stack, service: Service) {
  const heard: Set<string>[] = []
  const sockets = Array.from({ length: SOCKETS }, () => {
    const finished = new Set<string>()
    heard.push(finished)
    return connect(service).on(
      'job.changed',
      ({ jobs }: { jobs: { id: string; state: string }[] }) => {
        for (const { id, state } of jobs) if (state === 'succeeded') finished.add(id)
      },
    )
  })
  try {
    for (const socket of sockets)
      assert.deepEqual(await socket.emitWithAck('subscribe', 'jobs'), { ok: true })
    for (const container of await stack.containers('web'))
      assert.ok((await countSockets(stack, container)) > 0, 'one web process has all the sockets')
    const workers = new Set<string | undefined>()
    for (let report = 0; workers.size < 2; report++) {
      assert.ok(report < MAX_REPORTS, `${[...workers]} ran them all`)
      const id = await service.upload(CSV())
      await stack.eventually('it has finished', () => service.isFinished(id), REPORT_TIMEOUT_MS)
      const worker = await service.workerOf(id)
      await stack.eventually(
        `all sockets have heard of what ${worker} did`,
        async () => heard.every((finished) => finished.has(id)),
        RECOVERY_TIMEOUT_MS,
      )
      workers.add(worker)
    }
  } finally {
    for (const socket of sockets) socket.close()
  }
}

const connect = ({ url, headers }: Service) =>
  io(url, {
    transports: ['websocket'],
    extraHeaders: headers,
    forceNew: true,
    reconnectionDelay: 100,
    reconnectionDelayMax: 500,
  })

async function countSockets(stack: Stack, container: string) {
  const script = `fetch('http://127.0.0.1:9464/metrics').then((answer) => answer.text())
    .then((text) => console.log(text.match(/^realtime_connections (.+)$/m)?.[1]))`
  return Number(await stack.docker('exec', container, 'node', '--eval', script))
}

/** In which requests may fail; those of all others must not. */
interface Outage {
  from: number
  until: number
}

async function survivesKills(stack: Stack, service: Service) {
  const watched = await service.createProduct()
  const watchers = Array.from({ length: SOCKETS }, () => watch(service, watched))
  const load = startLoad(service, await service.createProduct())
  const untilSeen = async (when: string) => {
    const { version } = await service.changeProduct(watched.id)
    await stack.eventually(
      `${when}, all sockets know of version ${version}`,
      async () => watchers.every(({ seen }) => seen() >= version),
      RECOVERY_TIMEOUT_MS,
    )
  }
  const outages: Outage[] = []
  try {
    for (const kind of ['web', 'worker', 'valkey', 'nginx', 'mysql']) {
      const [container = ''] = await stack.containers(kind)
      await load.goesOn(stack)
      const from = performance.now()
      await stack.docker('kill', '--signal=KILL', container)
      const outage = { from, until: performance.now() }
      outages.push(outage)
      const isAlone = kind === 'nginx' || kind === 'mysql'
      if (kind === 'web' || kind === 'worker') await untilSeen(`without one ${kind}`)
      if (!isAlone) await load.goesOn(stack)
      await stack.docker('start', container)
      const format = '--format={{.State.Health.Status}}'
      await stack.eventually(
        `${kind} is healthy again`,
        async () => (await stack.docker('inspect', format, container)) === 'healthy',
        HEALTHY_TIMEOUT_MS,
      )
      if (isAlone) {
        outage.until = performance.now() + RECOVERY_TIMEOUT_MS
        await sleep(RECOVERY_TIMEOUT_MS)
      }
      await load.goesOn(stack)
      await untilSeen(`after ${kind} has returned`)
    }
    await load.stop()
    assert.deepEqual(load.failures(outages), [])
    assert.ok(load.accepted.length > 0)
    await stack.eventually(
      'all accepted jobs have finished',
      async () => {
        const finished = await Promise.all(load.accepted.map((id) => service.isFinished(id)))
        return finished.every(Boolean)
      },
      JOBS_TIMEOUT_MS,
    )
    console.log(`  ${load.served()} requests, ${load.accepted.length} jobs`)
  } finally {
    await load.stop()
    for (const { close } of watchers) close()
  }
}

async function saysUnavailable(stack: Stack, service: Service) {
  await stack.kill('web')
  const response = await service.get('/v1/jobs')
  assert.deepEqual(
    ['content-type', 'retry-after'].map((name) => response.headers.get(name)),
    ['application/problem+json', '1'],
  )
  const { status, code } = (await response.json()) as { status: number; code: string }
  assert.deepEqual([response.status, status, code], [503, 503, 'unavailable'])
}

/** As the live page does: subscribes, and reads again what it may have missed. */
function watch(service: Service, { id }: Product) {
  const socket = connect(service)
  let seen = 0
  const see = (version: number) => {
    seen = Math.max(seen, version)
  }
  socket.on('connect', async () => {
    try {
      await socket.emitWithAck('subscribe', 'products')
      see((await service.read<Product>(`/v1/products/${id}`)).version)
    } catch {
      socket.disconnect().connect()
    }
  })
  socket.on('product.changed', (change: Product) => change.id === id && see(change.version))
  return { seen: () => seen, close: () => socket.close() }
}

/** Clients that read all the time, one that changes a product, and one that uploads. */
function startLoad(service: Service, { id }: Product) {
  let [isStopped, served] = [false, 0]
  const accepted: string[] = []
  const failed: (Outage & { problem: string })[] = []
  const repeat = async (send: () => Promise<unknown>, everyMs: number) => {
    while (!isStopped) {
      const from = performance.now()
      try {
        await send()
        served++
      } catch (error) {
        failed.push({ from, until: performance.now(), problem: describe(error) })
      }
      await sleep(everyMs)
    }
  }
  const clients = [
    ...Array.from({ length: READERS }, () =>
      repeat(() => service.read(`/v1/products/${id}`), THINK_MS),
    ),
    repeat(() => service.changeProduct(id), THINK_MS),
    repeat(async () => accepted.push(await service.upload(CSV())), UPLOAD_EVERY_MS),
  ]
  return {
    accepted,
    served: () => served,
    goesOn(stack: Stack) {
      const before = served
      return stack.eventually('requests are served', async () => served > before + ENOUGH)
    },
    /** Those of requests that no outage touched. */
    failures: (outages: Outage[]) =>
      failed
        .filter(({ from, until }) => !outages.some((one) => from <= one.until && until >= one.from))
        .map(({ problem }) => problem),
    async stop() {
      isStopped = true
      await Promise.all(clients)
    },
  }
}

const describe = (error: unknown) =>
  error instanceof Error ? `${error.message} ${error.cause ?? ''}` : String(error)
