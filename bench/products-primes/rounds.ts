import { setTimeout as sleep } from 'node:timers/promises'
import { ClosedLoop, type LoopFigures, type Target } from '../support/closed-loop.ts'
import { cpuMs, untilIdle } from '../support/cores.ts'
import { API_KEY } from '../support/database.ts'
import type { Progress } from '../support/progress.ts'
import { type Server, startApp, startServer } from '../support/servers.ts'
import { add, median, medianRatio } from '../support/statistics.ts'
import { PRIMES_PATH, PRODUCT_PATHS } from './requests.ts'

/** How long the load runs before it counts, until statements are prepared, and then. */
interface Timing {
  leadInMs: number
  roundMs: number
}

type RoundsSettings = typeof ROUNDS

/** How it is measured; the results name all of it. */
export const ROUNDS = {
  /** How often all three start: how fast a process gets is partly chance, while it warms up. */
  starts: 3,
  /** Until V8 has compiled an endpoint. */
  warmUpMs: 6_000,
  leadInMs: 250,
  roundMs: 600,
  counts: [10, 50, 100, 500, 2_000],
  /** With how many connections offloop is compared with the others, and the rounds a start. */
  compared: { count: 50, rounds: 2 },
  /** A count of primes takes some 90 ms, and longer while many wait. */
  primes: { counts: [10, 25, 50, 100], leadInMs: 2_000, roundMs: 3_000 },
}

/** What `--quick` does instead. */
export const QUICK_ROUNDS: RoundsSettings = {
  starts: 1,
  warmUpMs: 1_000,
  leadInMs: 200,
  roundMs: 300,
  counts: [50, 500],
  compared: { count: 50, rounds: 1 },
  primes: { counts: [25], leadInMs: 500, roundMs: 1_000 },
}

/** Between two loads: the least that it takes to see that the server is idle. */
const PAUSE_MS = 150
/**
 * What a count of primes takes that the last load cut off: the floor and Fastify go on with it, on
 * the core of the next server.
 */
const CUT_OFF_MS = 100

const SERVERS = ['offloop', 'fastify', 'floor'] as const
type ServerName = (typeof SERVERS)[number]
const HERE = 'bench/products-primes'
type Servers = Map<ServerName, Server>

interface Endpoint {
  name: string
  nextRequest: Target['nextRequest']
}

const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: bench\r\n\r\n`
const post = (path: string, body: string) =>
  `POST ${path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer ${API_KEY}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`

const READS = PRODUCT_PATHS.map(get)
let sent = 0

export const PRIMES: Endpoint = { name: `GET ${PRIMES_PATH}`, nextRequest: () => get(PRIMES_PATH) }
const ENDPOINTS: Endpoint[] = [
  { name: 'GET /v1/products/{id}', nextRequest: () => READS[sent++ % READS.length] ?? '' },
  { name: 'GET /v1/products', nextRequest: () => get('/v1/products') },
  {
    name: 'POST /v1/products',
    // Names are unique.
    nextRequest: () =>
      post('/v1/products', `{"name":"Teapot no. ${sent++}","price":"24.50","stock":3}`),
  },
]

interface RoundFigures extends LoopFigures {
  /** Processor time of all the server's threads for each answer, in microseconds. */
  cpuUs: number
  /** The share of a core that the server had: below 1, clients or database were slow. */
  busy: number
}

/** A server with so many connections: medians over the rounds. */
export interface RoundsRow extends RoundFigures {
  endpoint: string
  server: ServerName
  connections: number
  rounds: RoundFigures[]
}

/** What offloop's goodput is of the others', by the median of each round's ratio. */
export interface Comparison {
  endpoint: string
  connections: number
  ofFloor: number
  ofFastify: number
}

/** How long `measureRounds` takes, in milliseconds. */
export function roundsMs({
  starts,
  warmUpMs,
  counts,
  compared,
  primes,
  ...timing
}: RoundsSettings): number {
  const stepsMs = counts.map(
    (count) => stepMs(timing, count) * (count === compared.count ? compared.rounds : 1),
  )
  const eachMs =
    ENDPOINTS.length * (stepMs({ leadInMs: 0, roundMs: warmUpMs }, compared.count) + add(stepsMs))
  const primesMs = primes.counts.map((count) => stepMs(primes, count) + count * CUT_OFF_MS)
  return SERVERS.length * (starts * eachMs + add(primesMs))
}

/** Many connections take longer to open. */
const OPEN_MS = 0.5

const stepMs = ({ leadInMs, roundMs }: Timing, connections: number) =>
  leadInMs + connections * OPEN_MS + roundMs + PAUSE_MS

/**
 * Drives offloop, Fastify and the floor in turns, each on the servers' core, with ever more
 * connections.
 */
export async function measureRounds(
  databaseUrl: string,
  settings: RoundsSettings,
  progress: Progress,
) {
  const { starts, warmUpMs, counts, compared, primes } = settings
  const rows: Rounds[] = []
  const measure = async (
    servers: Servers,
    endpoint: Endpoint,
    connections: number,
    timing: Timing,
    isCounted = true,
  ) => {
    for (const [server, running] of servers) {
      progress.next(
        `${endpoint.name}, ${connections} connections, ${server}`,
        stepMs(timing, connections),
      )
      const figures = await measureRound(running, endpoint, connections, timing)
      if (isCounted) findRow(rows, endpoint.name, server, connections).rounds.push(figures)
    }
  }
  for (let start = 1; start <= starts; start++) {
    await using started = new AsyncDisposableStack()
    const servers = await startServers(databaseUrl, started)
    for (const endpoint of ENDPOINTS) {
      await measure(servers, endpoint, compared.count, { leadInMs: 0, roundMs: warmUpMs }, false)
      for (const count of counts)
        for (let round = 0; round < (count === compared.count ? compared.rounds : 1); round++)
          await measure(servers, endpoint, count, settings)
    }
    if (start === starts)
      for (const count of primes.counts) await measure(servers, PRIMES, count, primes)
  }
  return {
    rows: rows.map(summarise),
    comparisons: ENDPOINTS.map(({ name }) => compare(rows, name, compared.count)),
  }
}

async function startServers(databaseUrl: string, started: AsyncDisposableStack): Promise<Servers> {
  const start = (file: string) => startServer(`${HERE}/${file}.ts`, databaseUrl, { pinned: true })
  return new Map<ServerName, Server>([
    ['offloop', started.use(await startApp(databaseUrl, 1, { pinned: true }))],
    ['fastify', started.use(await start('fastify'))],
    ['floor', started.use(await start('floor'))],
  ])
}

async function measureRound(
  { url, pid }: Server,
  { nextRequest }: Endpoint,
  connections: number,
  { leadInMs, roundMs }: Timing,
): Promise<RoundFigures> {
  const clients = new ClosedLoop({ url, nextRequest }, connections)
  await sleep(leadInMs + connections * OPEN_MS)
  const [startedAt, cpuBefore] = [performance.now(), cpuMs(pid)]
  clients.begin()
  await sleep(roundMs)
  const figures = clients.end()
  const [elapsedMs, usedMs] = [performance.now() - startedAt, cpuMs(pid) - cpuBefore]
  await untilIdle(pid)
  return { ...figures, cpuUs: (1_000 * usedMs) / figures.answers, busy: usedMs / elapsedMs }
}

type Rounds = Pick<RoundsRow, 'endpoint' | 'server' | 'connections' | 'rounds'>

function summarise({ rounds, ...row }: Rounds): RoundsRow {
  const middle = (pick: (round: RoundFigures) => number) => median(rounds.map(pick))
  return {
    ...row,
    answers: add(rounds.map(({ answers }) => answers)),
    goodPerSecond: middle(({ goodPerSecond }) => goodPerSecond),
    refusedShare: middle(({ refusedShare }) => refusedShare),
    p50Ms: middle(({ p50Ms }) => p50Ms),
    p99Ms: middle(({ p99Ms }) => p99Ms),
    clientsServed: middle(({ clientsServed }) => clientsServed),
    cpuUs: middle(({ cpuUs }) => cpuUs),
    busy: middle(({ busy }) => busy),
    failures: Object.assign({}, ...rounds.map(({ failures }) => failures)),
    rounds,
  }
}

function compare(rows: Rounds[], endpoint: string, connections: number): Comparison {
  const rates = (name: ServerName) =>
    rows
      .filter(
        (row) =>
          row.endpoint === endpoint && row.server === name && row.connections === connections,
      )
      .flatMap(({ rounds }) => rounds.map(({ goodPerSecond }) => goodPerSecond))
  const ours = rates('offloop')
  return {
    endpoint,
    connections,
    ofFloor: medianRatio(ours, rates('floor')),
    ofFastify: medianRatio(ours, rates('fastify')),
  }
}

/** The row of the three, which is added when it is not there yet. */
function findRow(
  rows: Rounds[],
  endpoint: string,
  server: ServerName,
  connections: number,
): Rounds {
  const isIt = (row: Rounds) =>
    row.endpoint === endpoint && row.server === server && row.connections === connections
  const row = rows.find(isIt) ?? { endpoint, server, connections, rounds: [] }
  if (row.rounds.length === 0) rows.push(row)
  return row
}
