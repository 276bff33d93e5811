import { atLeast } from '../support/bench.ts'
import { inTurns } from '../support/in-turns.ts'
import { machine } from '../support/machine.ts'
import { median, medianRatio } from '../support/statistics.ts'
import { type Measure, openCompute } from './measure.ts'
import { BareThreads, openPiscina, openPoolifier } from './peers.ts'
import { double } from './tasks.ts'

const SETTINGS = {
  tasks: 20_000,
  rounds: 15,
  threads: machine.cores,
  tasksPerPiscinaThread: 16,
} as const

const NUMBERS = Array.from({ length: SETTINGS.tasks }, (_, n) => n)

type DoubleAll = (numbers: number[]) => PromiseLike<number[]>

/**
 * Far more tasks than threads, each so small that sending it costs more than doing it; all are
 * started at once.
 */
export const measure: Measure = async (started) => {
  const compute = started.use(await openCompute(SETTINGS.threads, { maxQueued: SETTINGS.tasks }))
  const bare = started.use(new BareThreads<number, number>(SETTINGS.threads))
  const piscina = openPiscina()
  const piscinaPipelined = openPiscina(SETTINGS.tasksPerPiscinaThread)
  const poolifier = openPoolifier()
  const contestants = {
    'sequential, in place': async (numbers: number[]) => numbers.map((n) => n * 2),
    'postMessage alone': (numbers: number[]) => bare.runAll(numbers),
    'compute.map': (numbers: number[]) => compute.map(double, numbers),
    'compute.run, each': each((n) => compute.run(double, n)),
    'poolifier, each': each((n) => poolifier.execute(n)),
    'piscina, each': each((n) => piscina.run(n)),
    'piscina, each, 16 per thread': each((n) => piscinaPipelined.run(n)),
  }
  const ms = await inTurns(SETTINGS.rounds, contestants, timeAll)

  const figures = Object.entries(ms).map(([name, all]) => ({
    name,
    ms: median(all),
    usPerTask: (median(all) * 1_000) / SETTINGS.tasks,
  }))
  return {
    title: `${SETTINGS.tasks} tiny tasks at once; medians of ${SETTINGS.rounds} rounds`,
    rows: figures,
    targets: [
      atLeast(
        '20 000 tiny tasks: poolifier’s time ÷ compute.run’s',
        medianRatio(ms['poolifier, each'], ms['compute.run, each']),
        1,
      ),
      atLeast(
        '20 000 tiny tasks: Piscina’s time ÷ compute.run’s',
        medianRatio(ms['piscina, each'], ms['compute.run, each']),
        4,
      ),
      atLeast(
        '20 000 tiny tasks: Piscina’s time ÷ compute.map’s',
        medianRatio(ms['piscina, each'], ms['compute.map']),
        50,
      ),
    ],
    figures: { settings: SETTINGS, contestants: figures },
  }
}

const each =
  (double: (n: number) => Promise<number>): DoubleAll =>
  (numbers) =>
    Promise.all(numbers.map(double))

async function timeAll(doubleAll: DoubleAll): Promise<number> {
  const startedAt = performance.now()
  const doubled = await doubleAll(NUMBERS)
  const ms = performance.now() - startedAt
  if (doubled.length !== NUMBERS.length || doubled.some((value, n) => value !== 2 * n))
    throw new Error('Not all were doubled')
  return ms
}
