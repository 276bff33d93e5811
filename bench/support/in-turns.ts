import { setTimeout as sleep } from 'node:timers/promises'
import { median, medianRatio } from './statistics.ts'

/** Part of collecting garbage goes on in the background, on the cores that the threads need. */
const PAUSE_MS = 20
/** V8 still compiles code after hundreds of calls. */
const WARM_UP_ROUNDS = 3
const WARM_UP_MS = 3_000

/**
 * Measures each contestant `rounds` times, in turns, so that whatever else the machine does hits
 * all of them; the first turns, three or for three seconds, are for the compilers and do not count.
 */
export async function inTurns<Name extends string, Contestant, Figure>(
  rounds: number,
  contestants: Record<Name, Contestant>,
  measure: (contestant: Contestant) => Promise<Figure>,
): Promise<Record<Name, Figure[]>> {
  const entries = Object.entries(contestants) as [Name, Contestant][]
  const figures = Object.fromEntries(entries.map(([name]) => [name, []])) as unknown as Record<
    Name,
    Figure[]
  >
  const turn = async (record: (name: Name, figure: Figure) => void) => {
    for (const [name, contestant] of entries) {
      // Nobody pays for the garbage of the one before. A whole collection would also drop code
      // that was compiled for the objects of the others.
      globalThis.gc?.({ type: 'minor' })
      await sleep(PAUSE_MS)
      record(name, await measure(contestant))
    }
  }
  const warmAt = performance.now() + WARM_UP_MS
  for (let round = 0; round < WARM_UP_ROUNDS || performance.now() < warmAt; round++)
    await turn(() => {})
  for (let round = 0; round < rounds; round++)
    await turn((name, figure) => figures[name].push(figure))
  return figures
}

/** How long `work` takes, in milliseconds. */
export async function timeMs(work: () => unknown): Promise<number> {
  const startedAt = performance.now()
  await work()
  return performance.now() - startedAt
}

/** A way to do something, and how often it is done in a second. */
export interface Way {
  name: string
  perSecond: number
  /** The rate by that of the first way. */
  ofFirst: number
}

/** Compares ways by how often `measure` finds each to be done in a second. */
export async function compareRates<Contestant>(
  rounds: number,
  contestants: Record<string, Contestant>,
  measure: (contestant: Contestant) => Promise<number>,
): Promise<Way[]> {
  const rates = await inTurns(rounds, contestants, measure)
  const [first = []] = Object.values(rates)
  return Object.entries(rates).map(([name, all]) => ({
    name,
    perSecond: median(all),
    ofFirst: medianRatio(all, first),
  }))
}
