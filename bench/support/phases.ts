import { setTimeout as sleep } from 'node:timers/promises'
import { keepAwake } from './cores.ts'
import { startLoad } from './load.ts'
import { machine } from './machine.ts'
import { type ProbeResult, type Prober, startProber } from './prober.ts'
import type { Progress } from './progress.ts'
import { add, median, medianRatio, percentile } from './statistics.ts'

/** The heavy load runs for that long before the first light request. */
const LEAD_IN_MS = 500
/** Between two rounds: what the last one cut off comes to its end. */
const PAUSE_MS = 500
const WARM_UP_MS = 1_000

/** The light requests, and how many clients send the heavy ones. */
export interface LoadSettings {
  lightPath: string
  lightPerSecond: number
  heavyConnections: number
}

/** What goes on while the light endpoint is timed. */
export interface Phase<Name extends string> {
  name: Name
  appUrl: string
  /** None when nothing else goes on. */
  heavyPath?: string
  /** How many cores that keeps busy: the others are kept awake. */
  busyCores: number
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
  /** Those that were no 2xx: the heavy clients should have none. */
  heavyFailed?: number
}

/** Medians over the rounds; the highest of `maxMs`, and the sums of what was sent and failed. */
export interface PhaseFigures<Name extends string> extends Round {
  phase: Name
  /** How many times the first phase's p99 its p99 is: the median of each round's ratio. */
  timesIdle: number
  rounds: Round[]
  /** Every latency of all rounds, ascending. */
  latenciesMs: number[]
}

/**
 * Times a light endpoint, the phases in turns after a turn that does not count; the first is the
 * one without a load.
 */
export async function measurePhases<Name extends string>(
  phases: Phase<Name>[],
  settings: LoadSettings,
  progress: Progress,
): Promise<PhaseFigures<Name>[]> {
  await using prober = startProber()
  for (const phase of phases) {
    progress.next(`${settings.lightPath} warms up, ${phase.name}`, stepMs(WARM_UP_MS))
    await measureRound({ ...phase, roundMs: WARM_UP_MS }, settings, prober)
  }

  const figures = phases.map(({ name }) => ({
    name,
    rounds: [] as Round[],
    latenciesMs: [] as number[],
  }))
  for (let round = 0; round < Math.max(...phases.map(({ rounds }) => rounds)); round++)
    for (const [index, phase] of phases.entries()) {
      if (round >= phase.rounds) continue
      progress.next(`${settings.lightPath} under heavy load, ${phase.name}`, stepMs(phase.roundMs))
      const { latenciesMs, ...rest } = await measureRound(phase, settings, prober)
      figures[index]?.rounds.push(rest)
      figures[index]?.latenciesMs.push(...latenciesMs)
    }
  const idle = figures[0]?.rounds ?? []
  return figures.map(({ name, rounds, latenciesMs }) => summarise(name, rounds, idle, latenciesMs))
}

/** How long `measurePhases` takes, in milliseconds. */
export const phasesMs = (phases: Phase<string>[]) =>
  add(phases.map(({ rounds, roundMs }) => stepMs(WARM_UP_MS) + rounds * stepMs(roundMs)))

const stepMs = (roundMs: number) => LEAD_IN_MS + roundMs + PAUSE_MS

async function measureRound(
  { appUrl, heavyPath, busyCores, roundMs }: Phase<string>,
  { lightPath, lightPerSecond: perSecond, heavyConnections: connections }: LoadSettings,
  prober: Prober,
) {
  await using _awake = keepAwake(Math.max(0, machine.cores - busyCores))
  const [light, heavy] = await Promise.all([
    prober.probe({
      url: appUrl + lightPath,
      perSecond,
      startInMs: LEAD_IN_MS,
      durationMs: roundMs,
    }),
    heavyPath ? runHeavy({ url: appUrl + heavyPath, connections }, roundMs) : undefined,
  ])
  await sleep(PAUSE_MS)
  return {
    ...summariseLight(light),
    ...(heavy && { heavyPerSecond: heavy.perSecond, heavyFailed: heavy.failed }),
  }
}

/**
 * It ends when the last light request is sent, so that inline those that still wait come to their
 * answers.
 */
async function runHeavy(target: { url: string; connections: number }, roundMs: number) {
  const load = startLoad(target)
  await sleep(LEAD_IN_MS)
  load.begin()
  await sleep(roundMs)
  return load.end()
}

function summariseLight({ latenciesMs, lagsMs, failed }: ProbeResult) {
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

function summarise<Name extends string>(
  phase: Name,
  rounds: Round[],
  idle: Round[],
  latenciesMs: number[],
): PhaseFigures<Name> {
  const each = <Key extends keyof Round>(key: Key) =>
    rounds.map((round) => round[key] ?? Number.NaN)
  return {
    phase,
    p50Ms: median(each('p50Ms')),
    p99Ms: median(each('p99Ms')),
    maxMs: Math.max(...each('maxMs')),
    lagP99Ms: median(each('lagP99Ms')),
    timesIdle: medianRatio(
      each('p99Ms'),
      idle.map(({ p99Ms }) => p99Ms),
    ),
    sent: latenciesMs.length,
    failed: add(each('failed')),
    ...(rounds[0]?.heavyPerSecond !== undefined && {
      heavyPerSecond: median(each('heavyPerSecond')),
      heavyFailed: add(each('heavyFailed')),
    }),
    rounds,
    latenciesMs: latenciesMs.toSorted((a, b) => a - b),
  }
}
