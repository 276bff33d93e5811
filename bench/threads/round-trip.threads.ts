import { randomFill } from 'node:crypto'
import { promisify } from 'node:util'
import { atMost } from '../support/bench.ts'
import { inTurns } from '../support/in-turns.ts'
import { machine } from '../support/machine.ts'
import { median, medianRatio, percentile } from '../support/statistics.ts'
import { type Measure, openCompute } from './measure.ts'
import { partCores } from './part-cores.ts'
import { BareThreads, openPiscina, openPoolifier } from './peers.ts'
import { double } from './tasks.ts'

const SETTINGS = { calls: 1_000, rounds: 11, threads: machine.cores } as const

const bytes = new Uint8Array(8)
/** About the least that Node has its own threads do. */
const fill = promisify<Uint8Array, void>(randomFill)

type Double = (n: number) => Promise<number>

/**
 * One task that does nothing, sent and awaited, then the next: what waking a thread and coming back
 * costs.
 */
export const measure: Measure = async (started) => {
  const compute = started.use(await openCompute(SETTINGS.threads))
  const bare = started.use(new BareThreads<number, number>(SETTINGS.threads))
  const piscina = openPiscina()
  const poolifier = openPoolifier()
  const contestants = {
    'postMessage alone': (n: number) => bare.run(n),
    'compute.run': (n: number) => compute.run(double, n),
    'compute.run in a child process': (n: number) =>
      compute.run(double, n, { isolation: 'process' }),
    'libuv, eight random bytes': async (n: number) => {
      await fill(bytes)
      return 2 * n
    },
    piscina: (n: number) => piscina.run(n),
    poolifier: (n: number) => poolifier.execute(n),
  }
  // Each has started its threads when it answers.
  for (const call of Object.values(contestants)) await call(1)
  const onOwnCore = partCores()
  const rounds = await inTurns(SETTINGS.rounds, contestants, timeCalls)

  const p50s = (name: keyof typeof contestants) => rounds[name].map(({ p50Us }) => p50Us)
  const figures = (Object.keys(rounds) as (keyof typeof contestants)[]).map((name) => ({
    name,
    p50Us: median(p50s(name)),
    p99Us: median(rounds[name].map(({ p99Us }) => p99Us)),
    timesBare: medianRatio(p50s(name), p50s('postMessage alone')),
  }))
  return {
    title: `A task that does nothing, a round trip after another; medians of ${SETTINGS.rounds} rounds of ${SETTINGS.calls}`,
    rows: figures,
    targets: [
      atMost(
        'Round trip: p50 ÷ that of postMessage alone',
        medianRatio(p50s('compute.run'), p50s('postMessage alone')),
        1.15,
      ),
    ],
    figures: { settings: { ...SETTINGS, onOwnCore }, contestants: figures },
  }
}

async function timeCalls(call: Double) {
  const us: number[] = []
  for (let n = 0; n < SETTINGS.calls; n++) {
    const startedAt = performance.now()
    const doubled = await call(n)
    us.push((performance.now() - startedAt) * 1_000)
    if (doubled !== 2 * n) throw new Error(`${doubled} is not twice ${n}`)
  }
  return { p50Us: percentile(us, 0.5), p99Us: percentile(us, 0.99) }
}
