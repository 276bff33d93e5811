import { setTimeout as sleep } from 'node:timers/promises'
import { ClosedLoop } from '../support/closed-loop.ts'
import { residentMiB } from '../support/cores.ts'
import { machine } from '../support/machine.ts'
import { type Answer, type Prober, startProber } from '../support/prober.ts'
import type { Progress } from '../support/progress.ts'
import { type App, startApp, startServer } from '../support/servers.ts'
import { percentile } from '../support/statistics.ts'
import { PRIMES_PATH } from './requests.ts'

type OpenLoadSettings = typeof OPEN_LOAD

/** How it is measured; the results name all of it. */
export const OPEN_LOAD = {
  /** Rates by the capacity: the higher, the longer it takes until all goes evenly. */
  loads: [
    { factor: 0.5, leadInMs: 500, durationMs: 3_500 },
    { factor: 1, leadInMs: 1_500, durationMs: 5_000 },
    { factor: 2, leadInMs: 5_500, durationMs: 6_000 },
  ],
  /** In a closed loop with some clients. */
  capacity: { connections: 20, leadInMs: 1_500, durationMs: 3_000 },
  lightPerSecond: 200,
  idleMs: 3_000,
  /** By which a slow database delays its answers. */
  databaseDelayMs: 50,
}

/** What `--quick` does instead. */
export const QUICK_OPEN_LOAD: OpenLoadSettings = {
  ...OPEN_LOAD,
  loads: [{ factor: 2, leadInMs: 2_000, durationMs: 2_000 }],
  capacity: { connections: 20, leadInMs: 500, durationMs: 1_000 },
  idleMs: 1_000,
}

/** What is overloaded, and what has nothing to do with it and must stay as fast as idle. */
const KINDS = [
  {
    name: 'counts of primes',
    heavyPath: PRIMES_PATH,
    lightPath: '/v1/products/500',
    slowDatabase: false,
  },
  {
    name: 'reads, slow database',
    heavyPath: '/v1/products/7',
    lightPath: '/element.js',
    slowDatabase: true,
  },
] as const

const WARM_UP_MS = 1_000
/** The pacer needs some of it to start. */
const START_MS = 300
const PAUSE_MS = 500
/** More than the answers that are ever waited for at once. */
const MAX_CONNECTIONS = 4_000

export interface OpenLoadRow {
  kind: string
  /** The rate by the capacity; 0 without any load. */
  factor: number
  sentPerSecond: number
  goodPerSecond: number
  /** Its goodput by the capacity. */
  ofCapacity: number
  /** How many of all answers were 503, from 0 to 1. */
  refusedShare: number
  /** Of the 200s. */
  p50Ms: number
  p99Ms: number
  /** Neither 200 nor 503. */
  failed: number
  lightPath: string
  lightP50Ms: number
  lightP99Ms: number
  lightFailed: number
  /** Resident memory at its end. */
  memoryMiB: number
}

/** How long `measureOpenLoad` takes, in milliseconds. */
export function openLoadMs({ loads, capacity, idleMs }: OpenLoadSettings): number {
  const loadsMs = loads.reduce(
    (sum, { leadInMs, durationMs }) => sum + leadInMs + durationMs + START_MS + PAUSE_MS,
    0,
  )
  return (
    KINDS.length *
    (WARM_UP_MS + capacity.leadInMs + capacity.durationMs + idleMs + START_MS + PAUSE_MS + loadsMs)
  )
}

/**
 * Sends requests by the clock, whether or not those before are answered, as many people do who know
 * nothing of each other: at twice the capacity half of them must be refused, and the others must be
 * served as if there were no more.
 */
export async function measureOpenLoad(
  databaseUrl: string,
  settings: OpenLoadSettings,
  progress: Progress,
): Promise<OpenLoadRow[]> {
  await using heavy = startProber()
  await using light = startProber()
  const rows: OpenLoadRow[] = []
  for (const kind of KINDS) {
    await using started = new AsyncDisposableStack()
    const slow =
      kind.slowDatabase &&
      started.use(
        await startServer('bench/products-primes/slow-database.ts', databaseUrl, {
          env: { DELAY_MS: String(settings.databaseDelayMs) },
        }),
      )
    const app = started.use(await startApp(slow ? slow.url : databaseUrl, machine.cores))
    rows.push(...(await measureKind(kind, app, { heavy, light }, settings, progress)))
  }
  return rows
}

async function measureKind(
  { name, heavyPath, lightPath }: (typeof KINDS)[number],
  app: App,
  probers: { heavy: Prober; light: Prober },
  { loads, capacity, lightPerSecond, idleMs }: OpenLoadSettings,
  progress: Progress,
): Promise<OpenLoadRow[]> {
  const probeLight = (durationMs: number, startInMs = START_MS) =>
    probers.light.probe({
      url: app.url + lightPath,
      perSecond: lightPerSecond,
      startInMs,
      durationMs,
    })
  progress.next(
    `${name}: capacity`,
    WARM_UP_MS + capacity.leadInMs + capacity.durationMs + START_MS + PAUSE_MS,
  )
  await probeLight(WARM_UP_MS)
  const perSecond = await measureCapacity(app.url, heavyPath, capacity)
  await sleep(PAUSE_MS)

  progress.next(`${name}: idle`, idleMs)
  const idle = lightFigures(await probeLight(idleMs))
  const none = {
    sentPerSecond: 0,
    goodPerSecond: 0,
    ofCapacity: 0,
    refusedShare: 0,
    p50Ms: 0,
    p99Ms: 0,
    failed: 0,
  }
  const rows: OpenLoadRow[] = [
    { kind: name, factor: 0, ...none, lightPath, ...idle, memoryMiB: residentMiB(app.pid) },
  ]

  for (const { factor, leadInMs, durationMs } of loads) {
    progress.next(`${name}: ${factor} × capacity`, leadInMs + durationMs + START_MS + PAUSE_MS)
    const rate = factor * perSecond
    const order = {
      url: app.url + heavyPath,
      perSecond: rate,
      startInMs: START_MS,
      connections: MAX_CONNECTIONS,
    }
    const [sent, lightly, memoryMiB] = await Promise.all([
      probers.heavy.probe({ ...order, durationMs: leadInMs + durationMs }),
      probeLight(durationMs, START_MS + leadInMs),
      sleep(START_MS + leadInMs + durationMs).then(() => residentMiB(app.pid)),
    ])
    const counted = sent.answers.filter(
      ({ atMs }) => atMs >= leadInMs && atMs < leadInMs + durationMs,
    )
    const figures = heavyFigures(counted, durationMs)
    const ofCapacity = figures.goodPerSecond / perSecond
    rows.push({
      kind: name,
      factor,
      sentPerSecond: rate,
      ...figures,
      ofCapacity,
      lightPath,
      ...lightFigures(lightly),
      memoryMiB,
    })
    await sleep(PAUSE_MS)
  }
  return rows
}

async function measureCapacity(
  url: string,
  path: string,
  { connections, leadInMs, durationMs }: OpenLoadSettings['capacity'],
): Promise<number> {
  const clients = new ClosedLoop(
    { url, nextRequest: () => `GET ${path} HTTP/1.1\r\nHost: bench\r\n\r\n` },
    connections,
  )
  await sleep(leadInMs)
  clients.begin()
  await sleep(durationMs)
  return clients.end().goodPerSecond
}

function heavyFigures(answers: Answer[], durationMs: number) {
  const good = answers.filter(({ status }) => status === 200).map(({ ms }) => ms)
  const refused = answers.filter(({ status }) => status === 503).length
  return {
    goodPerSecond: (1_000 * good.length) / durationMs,
    refusedShare: refused / Math.max(1, answers.length),
    p50Ms: percentile(good, 0.5),
    p99Ms: percentile(good, 0.99),
    failed: answers.length - good.length - refused,
  }
}

const lightFigures = ({ latenciesMs, failed }: { latenciesMs: number[]; failed: number }) => ({
  lightP50Ms: percentile(latenciesMs, 0.5),
  lightP99Ms: percentile(latenciesMs, 0.99),
  lightFailed: failed,
})
