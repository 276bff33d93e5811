import { number } from '../align.ts'
import { openBenchDatabase } from '../database.ts'
import { canKeepAwake } from '../keep-awake.ts'
import { machine } from '../machine.ts'
import { measurePhases, type Phase } from '../phases.ts'
import { RESPONSIVENESS } from '../responsiveness.ts'
import { startApp } from '../servers.ts'
import { isProberRealTime } from '../start-prober.ts'
import { atMost, type Report } from './report.ts'

const { lightPath, lightPerSecond, heavyPath } = RESPONSIVENESS
const { cores } = machine

/** As many clients as the most threads there are, so that none of them is ever without work. */
const SETTINGS = {
  lightPath,
  lightPerSecond,
  heavyPath,
  heavyConnections: 4 * cores,
  rounds: 9,
  roundMs: 4_000,
  proberRealTime: isProberRealTime,
  coresKeptAwake: canKeepAwake,
} as const

const THREADS = { 'cores − 1': Math.max(1, cores - 1), cores, '4 × cores': 4 * cores }

/**
 * A light endpoint of the service while all threads count primes, by how many threads those are.
 */
export async function measureLightEndpoint(started: AsyncDisposableStack): Promise<Report> {
  const database = started.use(await openBenchDatabase())
  const { rounds, roundMs } = SETTINGS
  const loaded: Phase<string>[] = []
  for (const [name, threads] of Object.entries(THREADS)) {
    const { url: appUrl } = started.use(await startApp(database.url, threads))
    loaded.push({
      name: `threads = ${name}`,
      appUrl,
      heavyPath,
      busyCores: threads,
      rounds,
      roundMs,
    })
  }
  const idle = { name: 'idle', appUrl: loaded[0]?.appUrl ?? '', busyCores: 0, rounds, roundMs }
  const phases = await measurePhases([idle, ...loaded], SETTINGS)

  const timesIdle = (name: keyof typeof THREADS) =>
    phases.find(({ phase }) => phase === `threads = ${name}`)?.timesIdle ?? Number.NaN
  return {
    title: `GET ${lightPath} at ${lightPerSecond} req/s while ${SETTINGS.heavyConnections} clients ask for ${heavyPath}`,
    rows: [
      ['', 'p50 ms', 'p99 ms', 'p99 ÷ idle', 'failed', 'heavy req/s'],
      ...phases.map(({ phase, p50Ms, p99Ms, timesIdle, failed, heavyPerSecond }) => [
        phase,
        number(p50Ms, 2),
        number(p99Ms, 2),
        number(timesIdle, 2),
        String(failed),
        number(heavyPerSecond, 1),
      ]),
    ],
    targets: [
      atMost('Light endpoint, threads = cores − 1: p99 ÷ idle', timesIdle('cores − 1'), 1.3),
      atMost('Light endpoint, threads = cores: p99 ÷ idle', timesIdle('cores'), 1.7),
    ],
    figures: {
      settings: SETTINGS,
      database: database.version,
      phases: phases.map(({ latenciesMs: _, ...figures }) => figures),
    },
  }
}
