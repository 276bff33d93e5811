import { atMost } from '../support/bench.ts'
import { memoryGrowth } from '../support/memory-growth.ts'
import { type Measure, openCompute } from './measure.ts'
import { sum } from './tasks.ts'

/** A table of 256 MiB, and a thread for each reader, so that all of them read at once. */
const SETTINGS = { doubles: 2 ** 25, readers: 10, rounds: 3 } as const

/** Many tasks that need the same large table: there is to be one of it. */
export const measure: Measure = async (started) => {
  const { doubles, readers } = SETTINGS
  const compute = started.use(await openCompute(readers))
  const table = compute.share(Float64Array, doubles).fill(1)
  const read = async () => {
    for (let round = 0; round < SETTINGS.rounds; round++) {
      const tasks = Array.from({ length: readers }, () =>
        compute.run(sum, { values: table, from: 0, to: doubles }),
      )
      for (const total of await Promise.all(tasks))
        if (total !== doubles) throw new Error(`The sum is ${doubles}, not ${total}`)
    }
  }
  const growthMiB = await memoryGrowth(read)
  return {
    title: `${readers} tasks that read one shared table of 256 MiB at once, ${SETTINGS.rounds} times`,
    rows: [{ growthMiB }],
    targets: [atMost('Ten readers of 256 MiB: growth of memory together, MiB', growthMiB, 32)],
    figures: { settings: SETTINGS, growthMiB },
  }
}
