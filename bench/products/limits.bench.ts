import { request as send } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { atLeast, atMost, type Bench } from '../support/bench.ts'
import { ClosedLoop } from '../support/closed-loop.ts'
import { API_KEY, openBenchDatabase } from '../support/database.ts'
import { machine } from '../support/machine.ts'
import { type Prober, startProber } from '../support/prober.ts'
import { type App, readMetric, startApp } from '../support/servers.ts'
import { median, medianRatio, percentile } from '../support/statistics.ts'
import { number } from '../support/table.ts'

const CONNECTIONS = 50
const LEAD_IN_MS = 300
const WARM_UP_MS = 3_000
const ROUNDS = 32
const ROUND_MS = 500
const FLOOD_ROUNDS = 5
const FLOOD_MS = 8_000
/** Below the limit of an address. */
const LIGHT_PER_SECOND = 90
const LOGINS_PER_SECOND = 50
/** Of one client whose requests are refused soon. */
const FLOOD_CONNECTIONS = 200
const READ = '/v1/products/7'
const toRequest = (header = '') => `GET ${READ} HTTP/1.1\r\nHost: bench\r\n${header}\r\n`
const MIB = 2 ** 20

/** Each beside one that is anonymous and not limited, in the same turns. */
interface ReadRatios {
  limited: number
  byKey: number
  bySession: number
}

interface LimitsFigures extends ReadRatios {
  readsPerSecond: number
  idleP99Ms: number
  logInP99Ms: number
  floodP99Ms: number
  memoryGrowthMiB: number
}

export const bench: Bench<LimitsFigures> = {
  description: 'what access and limits cost a read, and floods the others; five minutes',
  packages: ['hono', 'lru.min'],

  async run({ started, progress }) {
    const lightMs = 3 * FLOOD_ROUNDS * FLOOD_MS
    const readsMs = 4 * (WARM_UP_MS + ROUNDS * (ROUND_MS + LEAD_IN_MS))
    progress.expect(readsMs + lightMs)
    const database = started.use(await openBenchDatabase())
    const [on, off] = (await Promise.all(
      ['on', 'off'].map((RATE_LIMITS) =>
        startApp(database.url, machine.cores, { env: { RATE_LIMITS } }),
      ),
    )) as [App, App]
    started.use(on)
    started.use(off)
    progress.next('reads in turns', readsMs)
    const reads = await compareReads(on, off)
    progress.next('log-ins and a client that floods', lightMs)
    const floods = await measureFloods(on, started.use(startProber()))
    const figures = { ...reads, ...floods }
    return {
      tables: [{ title: 'Reads per second, and p99 of a light endpoint', rows: [figures] }],
      targets: [
        atLeast('reads with limits ÷ without', reads.limited, 0.95),
        atLeast('reads with an API key ÷ anonymous', reads.byKey, 0.95),
        atLeast('reads with a session ÷ anonymous', reads.bySession, 0.95),
        atMost('light p99 ÷ idle in a flood of log-ins', floods.logInP99Ms / floods.idleP99Ms, 2),
      ],
      figures: { versions: { database: database.version }, ...figures },
    }
  },

  summarise: ({ limited, byKey, bySession, idleP99Ms, logInP99Ms, floodP99Ms }) => [
    [
      'reads by id with limits, an API key, a session',
      `${[limited, byKey, bySession].map((ratio) => number(ratio, 2)).join(', ')} of without`,
      `p99 of a light endpoint idle ${number(idleP99Ms, 1)} ms, in a flood of log-ins ` +
        `${number(logInP99Ms, 1)} ms, of refused reads ${number(floodP99Ms, 1)} ms`,
    ],
  ],
}

let addresses = 0
/** Linux takes all of 127.0.0.0/8 for itself; a new address has used nothing of its limits. */
const nextAddress = () => `127.1.${(++addresses >> 8) & 255}.${addresses & 255}`

async function compareReads(on: App, off: App): Promise<ReadRatios & { readsPerSecond: number }> {
  const cookie = await signUp(off.url)
  const variants = [
    [off, toRequest()],
    [on, toRequest()],
    [off, toRequest(`Authorization: Bearer ${API_KEY}\r\n`)],
    [off, toRequest(`Cookie: ${cookie}\r\n`)],
  ] as const
  for (const [app, request] of variants) await countReads(app, request, WARM_UP_MS)
  const rates = variants.map(() => [] as number[])
  for (let turn = 0; turn < ROUNDS * variants.length; turn++) {
    // Each is the first of a round in turn: it makes a difference.
    const index = (turn + Math.floor(turn / variants.length)) % variants.length
    const [app, request] = variants[index] as (typeof variants)[number]
    rates[index]?.push(await countReads(app, request, ROUND_MS))
  }
  const [anonymous = [], ...others] = rates
  const [limited = NaN, byKey = NaN, bySession = NaN] = others.map((rate) =>
    medianRatio(rate, anonymous),
  )
  return { readsPerSecond: median(anonymous), limited, byKey, bySession }
}

/** Returns the cookie of a new session. */
async function signUp(url: string): Promise<string> {
  const answer = await fetch(`${url}/v1/accounts`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ email: 'bench@example.com', password: 'correct horse battery staple' }),
  })
  return answer.headers.get('set-cookie')?.split(';')[0] ?? ''
}

/** @throws Error when any answer was not a 2xx. */
async function countReads({ url }: App, request: string, durationMs: number): Promise<number> {
  const nextRequest = () => request
  const loops = Array.from(
    { length: CONNECTIONS },
    () => new ClosedLoop({ url, nextRequest, localAddress: nextAddress() }, 1),
  )
  await sleep(LEAD_IN_MS)
  for (const loop of loops) loop.begin()
  await sleep(durationMs)
  const figures = loops.map((loop) => loop.end())
  const failures = figures.flatMap((each) => Object.keys(each.failures))
  if (failures.length > 0) throw new Error(`Reads failed: ${[...new Set(failures)].join(', ')}`)
  return figures.reduce((sum, { goodPerSecond }) => sum + goodPerSecond, 0)
}

/** In turns, so that whatever else the machine does hits all of them. */
async function measureFloods(app: App, prober: Prober) {
  const p99s = { idle: [] as number[], logIns: [] as number[], reads: [] as number[] }
  const memory = () => readMetric(app.opsUrl, 'process_resident_memory_bytes')
  const growth: number[] = []
  for (let round = 0; round < FLOOD_ROUNDS; round++) {
    p99s.idle.push(await measureLight(app, prober))
    const before = await memory()
    const timer = setInterval(() => guess(app.url), 1_000 / LOGINS_PER_SECOND)
    p99s.logIns.push(await measureLight(app, prober))
    clearInterval(timer)
    growth.push(((await memory()) - before) / MIB)
    const target = { url: app.url, nextRequest: () => toRequest(), localAddress: nextAddress() }
    const flood = new ClosedLoop(target, FLOOD_CONNECTIONS)
    p99s.reads.push(await measureLight(app, prober))
    flood.end()
  }
  return {
    idleP99Ms: median(p99s.idle),
    logInP99Ms: median(p99s.logIns),
    floodP99Ms: median(p99s.reads),
    /** Of the last round: the first ones fill caches. */
    memoryGrowthMiB: growth.at(-1) ?? Number.NaN,
  }
}

async function measureLight(app: App, prober: Prober): Promise<number> {
  const { latenciesMs, failed } = await prober.probe({
    url: app.url + READ,
    perSecond: LIGHT_PER_SECOND,
    startInMs: 1_000,
    durationMs: FLOOD_MS,
  })
  if (failed > 0) throw new Error(`${failed} light requests failed`)
  return percentile(latenciesMs, 0.99)
}

/** A wrong password for an account of its own, from an address of its own. */
function guess(url: string) {
  const localAddress = nextAddress()
  const headers = { 'content-type': 'application/json' }
  const asked = send(`${url}/v1/sessions`, { method: 'POST', localAddress, headers })
  asked.on('response', (answer) => answer.resume()).on('error', () => {})
  asked.end(JSON.stringify({ email: `${localAddress}@example.com`, password: 'wrong' }))
}
