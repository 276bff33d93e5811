import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { io, type Socket } from 'socket.io-client'
import { align, number } from './align.ts'
import { openBenchDatabase } from './database.ts'
import { machine } from './machine.ts'
import { type Server, startApp } from './servers.ts'
import { median } from './statistics.ts'

/**
 * `npm run bench:pages`: what open live pages cost the event loop, while tasks run whose spans they
 * are told.
 */
const PAGES = 20
const TOPICS = ['ops', 'products']
const ROUNDS = 7
const ROUND_MS = 4_000
const SETTLE_MS = 1_000
/** Some 20 ms of work, in several tasks, ten times a second. */
const REQUEST_PATH = '/v1/primes?to=500000'
const REQUEST_EVERY_MS = 100
const TARGET_PERCENT = 2

if (process.platform !== 'linux')
  throw new Error('The time of a single thread is read from /proc, which only Linux has')

await using bench = await openBenchDatabase()
await using app = await startApp(bench.url, availableParallelism())
console.log(
  `${machine.cpu}, ${machine.cores} cores · Node ${process.version} · ${PAGES} pages, ${ROUNDS} rounds of ${ROUND_MS} ms`,
)

const stop = new AbortController()
const load = requestOnAndOn(app, stop.signal)
const [without, withPages, extra]: number[][] = [[], [], []]
try {
  // The first turn does not count: V8 compiles.
  for (let round = 0; round <= ROUNDS; round++) {
    const idle = await measure(app)
    const pages = await openPages(app.url)
    const busy = await measure(app)
    for (const page of pages) page.close()
    if (round === 0) continue
    without?.push(idle)
    withPages?.push(busy)
    extra?.push(busy - idle)
  }
} finally {
  stop.abort()
  await load
}

const rowOf = (name: string, values: number[] = []) => [
  name,
  ...[median(values), Math.min(...values), Math.max(...values)].map((value) => number(value, 2)),
]
console.log(
  align([
    ['the main thread, % of a core', 'median', 'least', 'most'],
    rowOf('no page', without),
    rowOf(`${PAGES} pages`, withPages),
    rowOf('the difference', extra),
  ]),
)
const isMet = median(extra ?? []) < TARGET_PERCENT
console.log(
  `${isMet ? 'met' : 'NOT met'}: ${PAGES} pages cost less than ${TARGET_PERCENT} % of a core`,
)
process.exitCode = isMet ? 0 : 1

/** The share of a core that the service's main thread takes, in percent. */
async function measure({ pid }: Server): Promise<number> {
  await sleep(SETTLE_MS)
  const [startedAt, before] = [performance.now(), mainThreadMs(pid)]
  await sleep(ROUND_MS)
  return (100 * (mainThreadMs(pid) - before)) / (performance.now() - startedAt)
}

/** The process's first thread runs the event loop; the kernel counts its time in nanoseconds. */
function mainThreadMs(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/schedstat`, 'utf8').split(' ')[0]) / 1e6
}

async function openPages(url: string): Promise<Socket[]> {
  const pages = Array.from({ length: PAGES }, () =>
    io(url, { transports: ['websocket'], forceNew: true, reconnection: false }),
  )
  await Promise.all(
    pages.flatMap((page) => TOPICS.map((topic) => page.emitWithAck('subscribe', topic))),
  )
  return pages
}

async function requestOnAndOn({ url }: Server, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const [response] = await Promise.all([fetch(url + REQUEST_PATH), sleep(REQUEST_EVERY_MS)])
    if (!response.ok) throw new Error(`${REQUEST_PATH} was answered with ${response.status}`)
    await response.arrayBuffer()
  }
}
