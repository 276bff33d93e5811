import { setTimeout as sleep } from 'node:timers/promises'
import type { Bench } from '../support/bench.ts'
import { canKeepAwake } from '../support/cores.ts'
import { openBenchDatabase } from '../support/database.ts'
import { drive } from '../support/load.ts'
import { machine } from '../support/machine.ts'
import {
  type LoadSettings,
  measurePhases,
  type Phase,
  type PhaseFigures,
  phasesMs,
} from '../support/phases.ts'
import { isProberRealTime } from '../support/prober.ts'
import { type App, POOL_SIZE, readMetric, startApp } from '../support/servers.ts'
import { median, medianRatio, percentile } from '../support/statistics.ts'
import { number } from '../support/table.ts'
import { type CurvePoint, drawChart } from './chart.ts'
import { READ_BY_ID } from './requests.ts'

interface Settings extends LoadSettings {
  heavyPath: string
  rounds: number
  roundMs: number
  inlineRounds: number
  inlineRoundMs: number
}

/** How the light endpoint is timed; the results name all of it. */
export const LIGHT: Settings = {
  lightPath: '/v1/products/500',
  lightPerSecond: 200,
  heavyPath: '/v1/primes?to=1400000',
  heavyConnections: 4,
  rounds: 9,
  roundMs: 5_000,
  // Inline, what waits grows for as long as a round lasts: a longer one would give larger figures.
  inlineRounds: 3,
  inlineRoundMs: 3_000,
}
const QUICK: Settings = { ...LIGHT, rounds: 1, roundMs: 2_000, inlineRounds: 1 }
const WARM_UP_MS = { full: 4_000, quick: 1_500 }
const START_MS = 2_000

const DEPARTURE = { path: '/v1/primes?to=50000000', rounds: 20 } as const
const DEPARTURE_MS = 4_000
const DEPARTURE_POLL_MS = 1
const DEPARTURE_TIMEOUT_MS = 10_000

/** Where a latency curve ends: beyond it a few thousand requests say nothing. */
const LAST_SHARE = 0.999
const CURVE_POINTS = 80

type PhaseName = 'idle' | 'offloaded' | 'offloaded to one thread' | 'inline'
type MeasuredPhase = Omit<PhaseFigures<PhaseName>, 'latenciesMs'> & { curve: CurvePoint[] }

/** The light endpoint's figures, as `light.json` has them. */
export interface LightFigures {
  versions: { database: string }
  settings: { responsiveness: Settings; departure: typeof DEPARTURE }
  responsiveness: {
    phases: MeasuredPhase[]
    /** Heavy requests per second with all threads, by those with one. */
    speedUp: number
  }
  /** From a client's leaving until its threads are free. */
  departure: { medianMs: number; maxMs: number }
}

export const bench: Bench<LightFigures> = {
  description: 'a light endpoint while heavy requests keep every core busy; four minutes',
  packages: ['hono', '@hono/node-server', 'mysql2', 'kysely', 'undici'],

  async run({ started, progress, quick }) {
    const settings = quick ? QUICK : LIGHT
    const warmUpMs = quick ? WARM_UP_MS.quick : WARM_UP_MS.full
    progress.expect(START_MS + 2 * warmUpMs + phasesMs(listPhases(settings)) + DEPARTURE_MS)
    const database = started.use(await openBenchDatabase())
    const app = started.use(await startApp(database.url, machine.cores))
    const oneThread = started.use(await startApp(database.url, 1))
    // What is measured is a service that has been at work for a while.
    for (const { url } of [app, oneThread]) {
      progress.next('reads by id warm up', warmUpMs)
      await drive(url, READ_BY_ID, warmUpMs)
    }
    const phases = await measurePhases(
      listPhases(settings, app.url, oneThread.url),
      settings,
      progress,
    )
    progress.next('a client leaves', DEPARTURE_MS)
    const departure = await measureDeparture(app)
    const figures = {
      versions: { database: database.version },
      settings: {
        poolSize: POOL_SIZE,
        flushLogAtCommit: database.flushLogAtCommit,
        threads: machine.cores,
        proberRealTime: isProberRealTime,
        coresKeptAwake: canKeepAwake,
        responsiveness: settings,
        departure: DEPARTURE,
      },
      responsiveness: {
        phases: phases.map(({ latenciesMs, ...rest }) => ({
          ...rest,
          curve: toCurve(latenciesMs),
        })),
        speedUp: medianRatio(
          heavyRates(phases, 'offloaded'),
          heavyRates(phases, 'offloaded to one thread'),
        ),
      },
      departure,
    }
    const { phases: rows, speedUp } = figures.responsiveness
    return {
      tables: [
        {
          title: `GET ${settings.lightPath} at ${settings.lightPerSecond} req/s while ${settings.heavyConnections} clients ask for ${settings.heavyPath}`,
          rows,
        },
        {
          title: 'Heavy requests, all threads ÷ one; a client leaves',
          rows: [{ speedUp, ...departure }],
        },
      ],
      figures,
      files: { 'light.svg': drawChart(figures) },
    }
  },

  summarise({ responsiveness: { phases }, departure }) {
    const p99Ms = (name: PhaseName) => number(phases.find(({ phase }) => phase === name)?.p99Ms, 1)
    return [
      [
        'p99 of a light endpoint while 4 clients count primes on worker threads',
        `${p99Ms('offloaded')} ms`,
        `idle ${p99Ms('idle')} ms, on the event loop ${p99Ms('inline')} ms; a client that leaves frees its threads after ${number(departure.medianMs, 0)} ms`,
      ],
    ]
  },
}

/** @param appUrl has as many threads as there are cores. */
function listPhases(
  { heavyPath, rounds, roundMs, inlineRounds, inlineRoundMs }: Settings,
  appUrl = '',
  oneThreadUrl = '',
): Phase<PhaseName>[] {
  const { cores } = machine
  const inline = {
    heavyPath: `${heavyPath}&mode=inline`,
    rounds: inlineRounds,
    roundMs: inlineRoundMs,
  }
  const offloaded = { heavyPath, rounds, roundMs }
  return [
    { name: 'idle', appUrl, busyCores: 0, rounds, roundMs },
    { name: 'offloaded', appUrl, busyCores: cores, ...offloaded },
    { name: 'offloaded to one thread', appUrl: oneThreadUrl, busyCores: 1, ...offloaded },
    { name: 'inline', appUrl, busyCores: 1, ...inline },
  ]
}

const heavyRates = (phases: PhaseFigures<PhaseName>[], name: PhaseName) =>
  phases
    .find(({ phase }) => phase === name)
    ?.rounds.map(({ heavyPerSecond = Number.NaN }) => heavyPerSecond) ?? []

/** Evenly spaced in the logarithm of what is left above: from 90 to 99 % as from 99 to 99.9 %. */
const toCurve = (latenciesMs: number[]): CurvePoint[] =>
  Array.from({ length: CURVE_POINTS }, (_, index) => {
    const share = 1 - (1 - LAST_SHARE) ** (index / (CURVE_POINTS - 1))
    return [share, percentile(latenciesMs, share)]
  })

/** How soon all threads are free again once the client of a long request has left. */
async function measureDeparture({ url, opsUrl }: App) {
  const tookMs: number[] = []
  for (let round = 0; round < DEPARTURE.rounds; round++) {
    const client = new AbortController()
    fetch(url + DEPARTURE.path, { signal: client.signal }).catch(() => {})
    await untilBusy(opsUrl, machine.cores)
    const leftAt = performance.now()
    client.abort()
    await untilBusy(opsUrl, 0)
    tookMs.push(performance.now() - leftAt)
  }
  return { medianMs: median(tookMs), maxMs: Math.max(...tookMs) }
}

/** @throws Error after ten seconds. */
async function untilBusy(opsUrl: string, threads: number): Promise<void> {
  const deadline = performance.now() + DEPARTURE_TIMEOUT_MS
  while ((await readMetric(opsUrl, 'compute_threads_busy')) !== threads) {
    if (performance.now() > deadline)
      throw new Error(`Expected ${threads} busy threads within ${DEPARTURE_TIMEOUT_MS} ms`)
    await sleep(DEPARTURE_POLL_MS)
  }
}
