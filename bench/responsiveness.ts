import { setTimeout as sleep } from 'node:timers/promises'
import { startLoad } from './load.ts'
import type { ProbeResult } from './prober.ts'
import { type Prober, startProber } from './start-prober.ts'
import { median, percentile } from './statistics.ts'

/** How the light endpoint is timed; the results name all of it. */
export const RESPONSIVENESS = {
  lightPath: '/v1/products/500',
  lightPerSecond: 200,
  heavyPath: '/v1/primes?to=1400000',
  heavyConnections: 4,
  rounds: 5,
  roundMs: 5_000,
  /** Inline, what waits grows for as long as the round lasts: a longer one would only give larger figures. */
  inlineRounds: 3,
  inlineRoundMs: 3_000,
} as const

/** The heavy load runs for that long before the first light request. */
const LEAD_IN_MS = 500
/** Between two rounds: what the last one cut off comes to its end. */
const PAUSE_MS = 500
const WARM_UP_MS = 1_000

export type PhaseName = 'idle' | 'offloaded' | 'offloaded to one thread' | 'inline'

/** What goes on while the light endpoint is timed. */
interface Phase {
  name: PhaseName
  appUrl: string
  /** None when nothing else goes on. */
  heavyPath?: string
  rounds: number
  roundMs: number
}

interface Round {
  p50Ms: number
  p99Ms: number
  maxMs: number
  /** How late the prober itself was; contained in the above. */
  lagP99Ms: number
  sent: number
  /** Those of them that got another answer than 200. */
  failed: number
  heavyPerSecond?: number
}

/** Medians over the rounds; the highest of `maxMs`, and the sums of what was sent and failed. */
export interface PhaseFigures extends Round {
  phase: PhaseName
  /** How many times the idle p99 its p99 is: the median of each round's ratio. */
  timesIdle: number
  rounds: Round[]
  /** Every latency of all rounds, ascending. */
  latenciesMs: number[]
}

/**
 * Times a light endpoint at a steady rate while heavy requests keep the service busy, the phases in turns.
 *
 * @param appUrl has as many threads as there are cores.
 */
export async function measureResponsiveness(appUrl: string, oneThreadUrl: string): Promise<PhaseFigures[]> {
  const { heavyPath, rounds, roundMs, inlineRounds, inlineRoundMs } = RESPONSIVENESS
  const phases: Phase[] = [
    { name: 'idle', appUrl, rounds, roundMs },
    { name: 'offloaded', appUrl, heavyPath, rounds, roundMs },
    { name: 'offloaded to one thread', appUrl: oneThreadUrl, heavyPath, rounds, roundMs },
    { name: 'inline', appUrl, heavyPath: `${heavyPath}&mode=inline`, rounds: inlineRounds, roundMs: inlineRoundMs },
  ]
  await using prober = startProber()
  for (const phase of phases) await measureRound({ ...phase, roundMs: WARM_UP_MS }, prober)

  const figures = phases.map(({ name }) => ({ name, rounds: [] as Round[], latenciesMs: [] as number[] }))
  for (let round = 0; round < rounds; round++)
    for (const [index, phase] of phases.entries()) {
      if (round >= phase.rounds) continue
      const { latenciesMs, ...rest } = await measureRound(phase, prober)
      figures[index]?.rounds.push(rest)
      figures[index]?.latenciesMs.push(...latenciesMs)
    }
  const idle = figures[0]?.rounds ?? []
  return figures.map(({ name, rounds, latenciesMs }) => summarise(name, rounds, idle, latenciesMs))
}

async function measureRound({ name, appUrl, heavyPath, roundMs }: Phase, prober: Prober) {
  const { lightPath, lightPerSecond: perSecond } = RESPONSIVENESS
  const [light, heavy] = await Promise.all([
    prober.probe({ url: appUrl + lightPath, perSecond, startInMs: LEAD_IN_MS, durationMs: roundMs }),
    heavyPath ? runHeavy(appUrl + heavyPath, roundMs) : undefined,
  ])
  await sleep(PAUSE_MS)
  if (light.failed > 0 && name !== 'inline') throw new Error(`${light.failed} requests for ${lightPath} failed while ${name}`)
  return { ...figuresOf(light), ...(heavy && { heavyPerSecond: heavy.perSecond }) }
}

/** It ends when the last light request is sent, so that inline those that still wait come to their answers. */
async function runHeavy(url: string, roundMs: number) {
  const load = startLoad({ url, connections: RESPONSIVENESS.heavyConnections })
  await sleep(LEAD_IN_MS)
  load.begin()
  await sleep(roundMs)
  return load.end()
}

function figuresOf({ latenciesMs, lagsMs, failed }: ProbeResult) {
  return {
    latenciesMs,
    p50Ms: percentile(latenciesMs, 0.5),
    p99Ms: percentile(latenciesMs, 0.99),
    maxMs: percentile(latenciesMs, 1),
    lagP99Ms: percentile(lagsMs, 0.99),
    sent: latenciesMs.length,
    failed,
  }
}

function summarise(phase: PhaseName, rounds: Round[], idle: Round[], latenciesMs: number[]): PhaseFigures {
  const each = <Key extends keyof Round>(key: Key) => rounds.map((round) => round[key] ?? Number.NaN)
  return {
    phase,
    p50Ms: median(each('p50Ms')),
    p99Ms: median(each('p99Ms')),
    maxMs: Math.max(...each('maxMs')),
    lagP99Ms: median(each('lagP99Ms')),
    timesIdle: median(rounds.map(({ p99Ms }, index) => p99Ms / (idle[index]?.p99Ms ?? Number.NaN))),
    sent: latenciesMs.length,
    failed: each('failed').reduce((sum, failed) => sum + failed, 0),
    ...(phase !== 'idle' && { heavyPerSecond: median(each('heavyPerSecond')) }),
    rounds,
    latenciesMs: latenciesMs.toSorted((a, b) => a - b),
  }
}
