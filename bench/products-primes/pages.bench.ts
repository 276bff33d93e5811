import { setTimeout as sleep } from 'node:timers/promises'
import { io } from 'socket.io-client'
import { atMost, type Bench } from '../support/bench.ts'
import { threadCpuMs } from '../support/cores.ts'
import { API_KEY, openBenchDatabase } from '../support/database.ts'
import { machine } from '../support/machine.ts'
import { type Server, startApp } from '../support/servers.ts'
import { median } from '../support/statistics.ts'

const PAGES = 50
const TOPICS = ['ops', 'products', 'jobs']
/** What a page reads by itself, and how often. */
const READS = [
  { method: 'HEAD', path: '/', everyMs: 3_000 },
  { method: 'GET', path: '/v1/jobs?limit=12', everyMs: 15_000 },
  { method: 'GET', path: '/v1/jobs/counts', everyMs: 15_000 },
]
/** Of each: an hour of one page, after which V8 has compiled what answers. */
const WARM_UP_READS = 2_000
const ROUNDS = 7
const ROUND_MS = 4_000
const SETTLE_MS = 1_000
/** Some 20 ms of work, in several tasks, ten times a second. */
const REQUEST_PATH = '/v1/primes?to=500000'
const REQUEST_EVERY_MS = 100

export const bench: Bench = {
  description: 'what 50 open live pages cost the event loop; Linux, three minutes',
  packages: ['socket.io'],

  async run({ started, progress }) {
    if (process.platform !== 'linux')
      throw new Error('The time of a single thread is read from /proc, which only Linux has')
    progress.expect(2 * (ROUNDS + 1) * 2 * (ROUND_MS + SETTLE_MS))
    const database = started.use(await openBenchDatabase())
    const app = started.use(await startApp(database.url, machine.cores))
    await warmUp(app.url)
    const idle = await measureRounds(app, (round) =>
      progress.next(`idle, round ${round} of ${ROUNDS}`, 2 * (ROUND_MS + SETTLE_MS)),
    )
    const stop = new AbortController()
    const load = requestUntil(app, stop.signal)
    const busy = await measureRounds(app, (round) =>
      progress.next(`busy, round ${round} of ${ROUNDS}`, 2 * (ROUND_MS + SETTLE_MS)),
    ).finally(() => stop.abort())
    await load
    const extra = { idle: medianExtra(idle), busy: medianExtra(busy) }
    return {
      tables: [
        { title: 'The event loop of an idle service, % of a core', rows: idle },
        { title: 'While its threads count primes', rows: busy },
      ],
      figures: { settings: { pages: PAGES, roundMs: ROUND_MS }, idle, busy, extra },
      targets: [atMost(`${PAGES} pages, % of a core`, extra.idle, 2)],
    }
  },
}

interface Round {
  without: number
  withPages: number
  extra: number
}

const medianExtra = (rounds: Round[]) => median(rounds.map(({ extra }) => extra))

async function measureRounds(app: Server, onRound: (round: number) => void): Promise<Round[]> {
  const rounds: Round[] = []
  for (let round = 0; round <= ROUNDS; round++) {
    onRound(round)
    const without = await measureMainThread(app)
    const pages = await openPages(app.url)
    const withPages = await measureMainThread(app)
    pages.close()
    // The first turn does not count: V8 compiles.
    if (round > 0) rounds.push({ without, withPages, extra: withPages - without })
  }
  return rounds
}

/** The share of a core that the service's event loop takes, in percent. */
async function measureMainThread({ pid }: Server): Promise<number> {
  await sleep(SETTLE_MS)
  const [startedAt, before] = [performance.now(), threadCpuMs(pid)]
  await sleep(ROUND_MS)
  return (100 * (threadCpuMs(pid) - before)) / (performance.now() - startedAt)
}

async function warmUp(url: string) {
  for (let round = 0; round < WARM_UP_READS / PAGES; round++)
    await Promise.all(
      READS.flatMap(({ method, path }) =>
        Array.from({ length: PAGES }, () => read(method, url + path)),
      ),
    )
}

async function read(method: string, url: string) {
  const headers = { authorization: `Bearer ${API_KEY}`, 'x-background': '1' }
  await (await fetch(url, { method, headers })).arrayBuffer()
}

async function openPages(url: string) {
  const sockets = Array.from({ length: PAGES }, () =>
    io(url, {
      transports: ['websocket'],
      forceNew: true,
      reconnection: false,
      auth: { token: API_KEY },
    }),
  )
  await Promise.all(
    sockets.flatMap((page) => TOPICS.map((topic) => page.emitWithAck('subscribe', topic))),
  )
  // Pages were not opened all at once.
  const timers = READS.map(({ method, path, everyMs }) =>
    setInterval(() => void read(method, url + path), everyMs / PAGES),
  )
  return {
    close() {
      for (const timer of timers) clearInterval(timer)
      for (const socket of sockets) socket.close()
    },
  }
}

async function requestUntil({ url }: Server, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const [response] = await Promise.all([fetch(url + REQUEST_PATH), sleep(REQUEST_EVERY_MS)])
    if (!response.ok) throw new Error(`${REQUEST_PATH} was answered with ${response.status}`)
    await response.arrayBuffer()
  }
}
