import { setImmediate } from 'node:timers/promises'
import type { Timing } from '@offloop/workpool/pool'
import { detachedContext } from '@offloop/workpool/task'
import { countPrimesIn } from '../../src/features/primes/compute.ts'
import { countPrimes, type Range } from '../../src/features/primes/contract.ts'
import { atMost } from '../support/bench.ts'
import { inTurns } from '../support/in-turns.ts'
import { machine } from '../support/machine.ts'
import { add, median } from '../support/statistics.ts'
import { type Measure, openCompute } from '../threads/measure.ts'

const SETTINGS = { below: 1_400_000, items: 4, rounds: 61, threads: machine.cores } as const

const THREAD = new URL('../../src/thread.ts', import.meta.url)
const WHOLE: Range = { from: 0, to: SETTINGS.below }
const STEP = SETTINGS.below / SETTINGS.items
const QUARTERS: Range[] = Array.from({ length: SETTINGS.items }, (_, index) => ({
  from: index * STEP,
  to: (index + 1) * STEP,
}))

/**
 * Where the wall time of a round went: how long it was, and how much of it each thread did nothing.
 */
interface Round {
  wallMs: number
  idle: number[]
}

/**
 * Ranges of the same length whose work is not the same: the primes above cost more than those
 * below.
 */
export const measure: Measure = async (started) => {
  const timings: Timing[] = []
  const compute = started.use(
    await openCompute(SETTINGS.threads, {
      entry: THREAD,
      onTiming: (timing) => timings.push(timing),
    }),
  )
  const sequential = async (items: Range[]) =>
    items.map((item) => countPrimesIn(item, detachedContext))
  const expected = add(await sequential([WHOLE]))

  const measure = async (count: () => PromiseLike<number[]>): Promise<Round> => {
    timings.length = 0
    const startedAt = now()
    const total = add(await count())
    const endedAt = now()
    // The record of the last message may come after its result.
    await setImmediate()
    if (total !== expected) throw new Error(`There are ${expected} primes, not ${total}`)
    return { wallMs: endedAt - startedAt, idle: idleShares(timings, startedAt, endedAt) }
  }
  const rounds = {
    // Not in turns with the others: what it does to them is in bench/README.md
    ...(await inTurns(
      SETTINGS.rounds,
      { 'sequential, on the event loop': () => sequential([WHOLE]) },
      measure,
    )),
    ...(await inTurns(
      SETTINGS.rounds,
      {
        'compute.map, four quarters': () => compute.map(countPrimes, QUARTERS),
        'compute.map, one range': () => compute.map(countPrimes, [WHOLE]),
      },
      measure,
    )),
  }

  const figures = Object.entries(rounds).map(([name, all]) => ({ name, ...summarise(all) }))
  return {
    title: `The primes below ${SETTINGS.below}, ${SETTINGS.threads} threads; medians of ${SETTINGS.rounds} rounds`,
    rows: figures.map(({ idle, ...rest }) => ({
      ...rest,
      idle: idle.map((share) => share.toFixed(3)).join(' '),
    })),
    targets: figures
      .filter(({ name }) => name.startsWith('compute.map'))
      .map(({ name, mostIdle }) =>
        atMost(`Primes by ${name}: idle share of the most idle thread, %`, 100 * mostIdle, 5),
      ),
    figures: { settings: SETTINGS, ways: figures },
  }
}

/** What each thread did not work between two moments, the busiest first. */
function idleShares(timings: Timing[], startedAt: number, endedAt: number): number[] {
  const busy = new Map<string, number>()
  for (const timing of timings) {
    const ms = Math.min(timing.endedAt, endedAt) - Math.max(timing.startedAt, startedAt)
    busy.set(timing.thread, (busy.get(timing.thread) ?? 0) + ms)
  }
  const all = [...busy.values(), ...new Array<number>(SETTINGS.threads - busy.size).fill(0)]
  return all.map((ms) => 1 - ms / (endedAt - startedAt)).sort((a, b) => a - b)
}

function summarise(rounds: Round[]) {
  const idle = Array.from({ length: SETTINGS.threads }, (_, place) =>
    median(rounds.map((round) => round.idle[place] ?? Number.NaN)),
  )
  return {
    wallMs: median(rounds.map(({ wallMs }) => wallMs)),
    idle,
    mostIdle: median(rounds.map((round) => Math.max(...round.idle))),
  }
}

const now = () => performance.timeOrigin + performance.now()
