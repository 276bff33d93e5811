import { readFileSync } from 'node:fs'
import type { Incident } from '@offloop/loopwatch/incident'
import { Watchdog } from '@offloop/loopwatch/watchdog'
import { type AppContext, requestContext, requestInProgress } from '../../src/http/context.ts'
import { createRouter } from '../../src/http/router.ts'
import { HttpServer } from '../../src/http/server.ts'

/**
 * A service whose handlers hold the event loop, each in its own way; prints where it listens, then
 * each incident.
 */
const BIG_TEXT = `[${'{"id":123456,"name":"item 123456","tags":["a","b","c"]},'.repeat(900_000)}null]`

const router = createRouter()
router.use(requestContext(60_000, () => {}))
router.get('/loop/:ms', (c) => {
  spin(Number(c.req.param('ms')))
  return c.text('done')
})
router.get('/after-waiting/:ms', async (c) => {
  await c.req.text()
  await spinLater(Number(c.req.param('ms')))
  return c.text('done')
})
router.get('/parse', parseBigText)
router.get('/expression', (c) => c.text(String(matches(`${'a'.repeat(27)}!`))))
router.get('/file', readWholeFile)

/** For so long by the clock of the thread: on a busy machine it gets only a part of the time. */
function spin(ms: number) {
  const since = process.threadCpuUsage()
  let used = process.threadCpuUsage(since)
  while (used.user + used.system < ms * 1_000) used = process.threadCpuUsage(since) // held by the loop
}

async function spinLater(ms: number) {
  await new Promise((resolve) => setTimeout(resolve, 5))
  spin(ms)
}

function parseBigText(c: AppContext) {
  const items = JSON.parse(BIG_TEXT) // held by the parser
  const { length } = items
  return c.json({ length })
}

function matches(text: string) {
  return /^(\w+\s?)*$/.test(text) // held by the expression
}

function readWholeFile(c: AppContext) {
  const path = c.req.query('path') ?? ''
  const text = readFileSync(path, 'utf8') // held by the file
  return c.text(text)
}

const log = (incident: Incident) => console.log(JSON.stringify(incident))
const watchdog = await Watchdog.open({
  thresholdMs: Number(process.env['WATCHDOG_MS'] ?? 100),
  onIncident: log,
  tireless: process.env['TIRELESS'] === 'true',
  requestInProgress,
  server: { host: '127.0.0.1', port: 0, maxHeldMs: 3_000 },
  metricsPage: async () => 'a_figure 1\n',
})
const server = new HttpServer({ leaving: new AbortController().signal })
const url = await server.listen(router, '127.0.0.1', 0)
watchdog.start()
console.log(JSON.stringify({ url, ops: watchdog.url }))
process.once('SIGTERM', async () => {
  await server[Symbol.asyncDispose]()
  await watchdog[Symbol.asyncDispose]()
  process.exitCode = 0
  process.removeAllListeners()
})
