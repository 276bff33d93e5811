import { AsyncLocalStorage } from 'node:async_hooks'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { CurrentRequest } from '../../stack-sample.ts'
import { Watchdog } from '../../watchdog.ts'

/**
 * A service whose handlers block the event loop, each in its own way. It prints where it listens,
 * then each block.
 */
const BIG_TEXT = `[${'{"id":123456,"name":"item 123456","tags":["a","b","c"]},'.repeat(900_000)}null]`

const handlers: Record<string, (parameter: string) => unknown> = {
  '/loop/:ms': (ms) => spin(Number(ms)),
  '/after-waiting/:ms': (ms) => spinLater(Number(ms)),
  '/parse': parseBigText,
  '/expression': () => matches(`${'a'.repeat(27)}!`),
  '/file/:path': (path) => readWholeFile(decodeURIComponent(path)),
}

/** In CPU time of the thread: on a busy machine it gets only a part of a core. */
function spin(ms: number) {
  const since = process.threadCpuUsage()
  let used = process.threadCpuUsage(since)
  while (used.user + used.system < ms * 1_000) used = process.threadCpuUsage(since) // blocking loop
}

async function spinLater(ms: number) {
  await sleep(5)
  spin(ms)
}

function parseBigText() {
  const items = JSON.parse(BIG_TEXT) // blocking parser
  return describeItems(items)
}

const describeItems = ({ length }: unknown[]) => `${length} items`

function matches(text: string) {
  return /^(\w+\s?)*$/.test(text) // blocking expression
}

function readWholeFile(path: string) {
  const text = readFileSync(path, 'utf8') // blocking read
  return describeText(text)
}

const describeText = ({ length }: string) => `${length} characters`

const requests = new AsyncLocalStorage<CurrentRequest>()
const server = createServer((request, response) => {
  const [, name = '', parameter = ''] = request.url?.split('/') ?? []
  const route = Object.keys(handlers).find((path) => path.split('/')[1] === name) ?? '/'
  const requestId = String(request.headers['x-request-id'] ?? '')
  requests.run({ requestId, route }, async () => {
    await handlers[route]?.(parameter)
    response.end('done')
  })
})

const watchdog = await Watchdog.open({
  thresholdMs: Number(process.env['THRESHOLD_MS'] ?? 100),
  onBlock: (block) => console.log(JSON.stringify(block)),
  ...(process.env['MAX_SAMPLES'] && { maxSamples: Number(process.env['MAX_SAMPLES']) }),
  currentRequest: () => requests.getStore(),
  probes: {
    host: '127.0.0.1',
    port: 0,
    maxBlockedMs: 3_000,
    problems: { 503: { code: 'unavailable' } },
  },
  metrics: async () => 'a_metric 1\n',
})
server.listen(0, '127.0.0.1', () => {
  watchdog.start()
  const { port } = server.address() as AddressInfo
  console.log(JSON.stringify({ url: `http://127.0.0.1:${port}`, probes: watchdog.url }))
})
process.once('SIGTERM', async () => {
  server.close()
  server.closeAllConnections()
  await watchdog[Symbol.asyncDispose]()
})
