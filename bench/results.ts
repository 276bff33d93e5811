import type { BenchDatabase } from './database.ts'
import { DEPARTURE, type DepartureFigures } from './departure.ts'
import { canKeepAwake } from './keep-awake.ts'
import { machine, versionsOf } from './machine.ts'
import type { PhaseFigures } from './phases.ts'
import type { PhaseName, ResponsivenessSettings } from './responsiveness.ts'
import { POOL_SIZE } from './servers.ts'
import { isProberRealTime } from './start-prober.ts'
import { medianRatio, percentile } from './statistics.ts'

const PACKAGES = [
  'hono',
  '@hono/node-server',
  'mysql2',
  'kysely',
  'fastify',
  'autocannon',
  'undici',
]

/** Where a latency curve ends: beyond it a few thousand requests say nothing. */
const LAST_SHARE = 0.999
const CURVE_POINTS = 80

/** A share of the requests, and the latency that it stays below. */
export type CurvePoint = [share: number, ms: number]

export type Results = ReturnType<typeof collectResults>

/** What figures depend on, as each file of results begins. */
export const conditionsOf = <Settings extends object>(
  { version, flushLogAtCommit }: BenchDatabase,
  settings: Settings,
) => ({
  measuredAt: new Date().toISOString(),
  machine,
  versions: { ...versionsOf(PACKAGES), database: version },
  settings: {
    poolSize: POOL_SIZE,
    flushLogAtCommit,
    threads: machine.cores,
    proberRealTime: isProberRealTime,
    coresKeptAwake: canKeepAwake,
    ...settings,
  },
})

/** All that is found about a light endpoint, as `latest.json` has it. */
export function collectResults(
  database: BenchDatabase,
  responsiveness: ResponsivenessSettings,
  phases: PhaseFigures<PhaseName>[],
  departure: DepartureFigures,
) {
  return {
    ...conditionsOf(database, { responsiveness, departure: DEPARTURE }),
    responsiveness: {
      phases: phases.map(({ latenciesMs, ...figures }) => ({
        ...figures,
        curve: curveOf(latenciesMs),
      })),
      /** Heavy requests per second with all threads, by those with one. */
      speedUp: speedUp(phases),
    },
    /** From a client's leaving until the threads that it had are free. */
    departure,
  }
}

/**
 * Evenly spaced in the logarithm of what is left above: as far from 90 to 99 % as from 99 to 99.9
 * %.
 */
const curveOf = (latenciesMs: number[]): CurvePoint[] =>
  Array.from({ length: CURVE_POINTS }, (_, index) => {
    const share = 1 - (1 - LAST_SHARE) ** (index / (CURVE_POINTS - 1))
    return [share, percentile(latenciesMs, share)]
  })

function speedUp(phases: PhaseFigures<PhaseName>[]): number {
  const ratesOf = (name: PhaseName) =>
    phases
      .find(({ phase }) => phase === name)
      ?.rounds.map(({ heavyPerSecond = Number.NaN }) => heavyPerSecond) ?? []
  return medianRatio(ratesOf('offloaded'), ratesOf('offloaded to one thread'))
}
