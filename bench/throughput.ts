import { setTimeout as sleep } from 'node:timers/promises'
import type autocannon from 'autocannon'
import { type LoadFigures, startLoad } from './load.ts'
import { machine } from './machine.ts'
import { startApp, startFloor } from './servers.ts'
import { median, medianRatio } from './statistics.ts'

/**
 * How the throughput is measured; the results name all of it. The rounds are short, because the speed of a shared machine
 * changes within seconds, and both of a round should meet the same.
 */
export const THROUGHPUT = { pairs: 3, warmUpRounds: 8, rounds: 10, roundMs: 500, leadInMs: 300, connections: 20 } as const

/** Between two loads: connections that the last one cut off are closed and replaced. */
const PAUSE_MS = 200

/** Those that the database is seeded with, all of them read in turn. */
const PRODUCT_IDS = Array.from({ length: 100 }, (_, index) => index * 10 + 1)

interface Endpoint {
  name: string
  /** Whether the floor serves it too. */
  onFloor: boolean
  options: Omit<autocannon.Options, 'url'>
}

/** Reads by id: what costs the service the least, so that whatever is added to a request shows most. */
export const READ_BY_ID: Endpoint = {
  name: 'GET /v1/products/{id}',
  onFloor: true,
  options: { requests: PRODUCT_IDS.map((id) => ({ path: `/v1/products/${id}` })) },
}

const ENDPOINTS: Endpoint[] = [
  READ_BY_ID,
  { name: 'GET /v1/products', onFloor: true, options: { requests: [{ path: '/v1/products' }] } },
  {
    name: 'POST /v1/products',
    onFloor: false,
    options: {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      // autocannon puts another id in each of them: names are unique.
      idReplacement: true,
      requests: [{ path: '/v1/products', body: '{"name":"Teapot [<id>]","price":"24.50","stock":3}' }],
    },
  },
]

/** Medians over the rounds. */
export interface EndpointFigures {
  endpoint: string
  app: LoadFigures
  floor?: LoadFigures
  /** The app's requests per second by the floor's: the median of each round's ratio. */
  ratio?: number
  rounds: { app: LoadFigures; floor?: LoadFigures }[]
}

/**
 * Drives the app and the floor in turns, so that whatever else the machine does hits both; several of each, because how fast a
 * process gets is partly chance, decided while it warms up.
 */
export async function measureThroughput(databaseUrl: string): Promise<EndpointFigures[]> {
  const measured = ENDPOINTS.map((endpoint) => ({ endpoint, rounds: [] as EndpointFigures['rounds'] }))
  for (let pair = 0; pair < THROUGHPUT.pairs; pair++) {
    await using app = await startApp(databaseUrl, machine.cores)
    await using floor = await startFloor(databaseUrl)
    for (const { endpoint, rounds } of measured) rounds.push(...(await measureEndpoint(endpoint, app.url, floor.url)))
  }
  return measured.map(({ endpoint, rounds }) => summarise(endpoint.name, rounds))
}

async function measureEndpoint({ onFloor, options }: Endpoint, appUrl: string, floorUrl: string) {
  const rounds: EndpointFigures['rounds'] = []
  // It takes some four seconds of load until V8 has compiled the app's many functions; the floor's few are done sooner.
  for (let round = -THROUGHPUT.warmUpRounds; round < THROUGHPUT.rounds; round++) {
    const app = await drive(appUrl, options, THROUGHPUT.roundMs)
    rounds.push(onFloor ? { app, floor: await drive(floorUrl, options, THROUGHPUT.roundMs) } : { app })
  }
  return rounds.slice(THROUGHPUT.warmUpRounds)
}

/** One round of load on an endpoint. */
export async function drive(url: string, options: Endpoint['options'], roundMs: number): Promise<LoadFigures> {
  const load = startLoad({ url, connections: THROUGHPUT.connections, ...options })
  await sleep(THROUGHPUT.leadInMs)
  load.begin()
  await sleep(roundMs)
  const figures = await load.end()
  await sleep(PAUSE_MS)
  return figures
}

function summarise(endpoint: string, rounds: EndpointFigures['rounds']): EndpointFigures {
  const app = medians(rounds.map((round) => round.app))
  const floors = rounds.flatMap((round) => round.floor ?? [])
  if (floors.length === 0) return { endpoint, app, rounds }
  const ratio = medianRatio(
    rounds.map((round) => round.app.perSecond),
    floors.map((floor) => floor.perSecond),
  )
  return { endpoint, app, floor: medians(floors), ratio, rounds }
}

const medians = (figures: LoadFigures[]): LoadFigures => ({
  perSecond: median(figures.map(({ perSecond }) => perSecond)),
  p50Ms: median(figures.map(({ p50Ms }) => p50Ms)),
  p99Ms: median(figures.map(({ p99Ms }) => p99Ms)),
})
