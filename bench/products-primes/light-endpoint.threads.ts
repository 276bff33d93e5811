import { atMost } from '../support/bench.ts'
import { canKeepAwake } from '../support/cores.ts'
import { openBenchDatabase } from '../support/database.ts'
import { machine } from '../support/machine.ts'
import { measurePhases, type Phase } from '../support/phases.ts'
import { isProberRealTime } from '../support/prober.ts'
import { Progress } from '../support/progress.ts'
import { startApp } from '../support/servers.ts'
import type { Measure } from '../threads/measure.ts'
import { LIGHT } from './light.bench.ts'

const { lightPath, lightPerSecond, heavyPath } = LIGHT
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

/** A light endpoint while all threads count primes, by how many threads those are. */
export const measure: Measure = async (started) => {
  const database = started.use(await openBenchDatabase())
  const { rounds, roundMs } = SETTINGS
  const loaded: Phase<string>[] = []
  for (const [name, threads] of Object.entries(THREADS)) {
    const { url: appUrl } = started.use(await startApp(database.url, threads))
    const phase = { name: `threads = ${name}`, appUrl, heavyPath, busyCores: threads }
    loaded.push({ ...phase, rounds, roundMs })
  }
  const idle = { name: 'idle', appUrl: loaded[0]?.appUrl ?? '', busyCores: 0, rounds, roundMs }
  const phases = await measurePhases([idle, ...loaded], SETTINGS, new Progress())

  const timesIdle = (name: keyof typeof THREADS) =>
    phases.find(({ phase }) => phase === `threads = ${name}`)?.timesIdle ?? Number.NaN
  return {
    title: `GET ${lightPath} at ${lightPerSecond} req/s while ${SETTINGS.heavyConnections} clients ask for ${heavyPath}`,
    rows: phases,
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
