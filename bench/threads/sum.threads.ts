import type { Pool } from '@offloop/workpool/pool'
import { atMost } from '../support/bench.ts'
import { inTurns, timeMs } from '../support/in-turns.ts'
import { machine } from '../support/machine.ts'
import { memoryGrowth } from '../support/memory-growth.ts'
import { add, median, medianRatio } from '../support/statistics.ts'
import { type Measure, openCompute } from './measure.ts'
import { BareThreads } from './peers.ts'
import { addSlice, double, type Slice, sum } from './tasks.ts'

/** 1 GiB of doubles, in slices of 8 MiB. */
const SETTINGS = {
  doubles: 2 ** 27,
  slice: 2 ** 20,
  rounds: 31,
  memoryRounds: 3,
  threads: machine.cores,
} as const

const NUMBERS = Array.from({ length: 1_000 }, (_, n) => n)

type Work = () => PromiseLike<number> | number

/** Large data and little to do with it: what counts is that nobody copies it. */
export const measure: Measure = async (started) => {
  const compute = started.use(await openCompute(SETTINGS.threads))
  const bare = started.use(new BareThreads<Slice, number>(SETTINGS.threads))
  const values = compute.share(Float64Array, SETTINGS.doubles)
  const expected = fill(values)
  const part = Math.ceil(SETTINGS.doubles / SETTINGS.threads)
  const whole: Slice = { values, from: 0, to: SETTINGS.doubles }
  await runAnotherTask(compute)
  const sequential = { 'sequential, on the event loop': () => addSlice(whole) }
  const onThreads = {
    'shared, one thread': () => compute.run(sum, whole),
    // What the machine gives to all cores at once: no pool, and nothing to hand out in between.
    'shared, an equal part on each bare thread': async () =>
      add(await bare.runAll(slicesOf(values, part))),
    'shared, compute.map on all threads': () => compute.map(sum, slicesOf(values)).reduce(0),
  }
  const check = async (work: Work) => {
    const total = await work()
    if (total !== expected) throw new Error(`The sum is ${expected}, not ${total}`)
  }
  const time = (work: Work) => timeMs(() => check(work))
  const times = {
    // Not in turns with the others: what it does to them is in bench/README.md
    ...(await inTurns(SETTINGS.rounds, sequential, time)),
    ...(await inTurns(SETTINGS.rounds, onThreads, time)),
  }
  // Not at the same time: looking at the memory takes a core from the threads.
  const growths = await inTurns(
    SETTINGS.memoryRounds,
    { ...sequential, ...onThreads },
    (work: Work) => memoryGrowth(() => check(work)),
  )
  let clonedMs = Number.NaN
  const clonedMiB = await memoryGrowth(async () => {
    clonedMs = await time(() => compute.run(sum, { ...whole, values: values.slice() }))
  })

  const figures = [
    ...(Object.keys(times) as (keyof typeof times)[]).map((name) => ({
      name,
      ms: median(times[name]),
      growthMiB: Math.max(...growths[name]),
    })),
    { name: 'cloned to one thread (once)', ms: clonedMs, growthMiB: clonedMiB },
  ]
  const oneThread = times['shared, one thread'].map((ms) => ms / SETTINGS.threads)
  return {
    title: `The sum of 1 GiB of doubles; medians of ${SETTINGS.rounds} rounds`,
    rows: figures,
    targets: [
      atMost(
        'Shared sum: all threads ÷ (one thread / cores)',
        medianRatio(times['shared, compute.map on all threads'], oneThread),
        1.1,
      ),
      atMost(
        'Shared sum: growth of memory, MiB',
        Math.max(
          ...growths['shared, one thread'],
          ...growths['shared, compute.map on all threads'],
        ),
        16,
      ),
    ],
    figures: { settings: SETTINGS, ways: figures },
  }
}

/**
 * As in a service that has run for a while: the code around tasks is compiled, and there is more
 * than one of them. With one alone, V8 compiles it into the loop that calls it, and this one comes
 * out half as fast.
 */
async function runAnotherTask(compute: Pool) {
  for (let pass = 0; pass < 200; pass++) await compute.map(double, NUMBERS)
}

/** Touches every page. Whole numbers, so that the sum is exact in whatever order. */
function fill(values: Float64Array): number {
  for (let index = 0; index < values.length; index++) values[index] = index & 0xff
  return addSlice({ values, from: 0, to: values.length })
}

const slicesOf = (values: Float64Array, length: number = SETTINGS.slice): Slice[] =>
  Array.from({ length: Math.ceil(SETTINGS.doubles / length) }, (_, index) => ({
    values,
    from: index * length,
    to: Math.min((index + 1) * length, SETTINGS.doubles),
  }))
