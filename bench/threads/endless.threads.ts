import { atMost } from '../support/bench.ts'
import { machine } from '../support/machine.ts'
import { MIB } from '../support/memory-growth.ts'
import { type Measure, openCompute } from './measure.ts'
import { double } from './tasks.ts'

const SETTINGS = { seconds: 30, threads: machine.cores } as const

/**
 * An endless asynchronous source, read through `compute.map`: memory must not depend on how much
 * has come.
 */
export const measure: Measure = async (started) => {
  const compute = started.use(await openCompute(SETTINGS.threads))
  const startedAt = performance.now()
  /** Resident memory at the end of each second. */
  const mib: number[] = []
  let read = 0
  for await (const doubled of compute.map(double, naturalNumbers())) {
    if (doubled !== 2 * read) throw new Error(`${doubled} is not twice ${read}`)
    read++
    if (performance.now() - startedAt < (mib.length + 1) * 1_000) continue
    globalThis.gc?.()
    if (mib.push(process.memoryUsage.rss() / MIB) === SETTINGS.seconds) break
  }
  const third = Math.floor(SETTINGS.seconds / 3)
  // V8 takes and gives back some 20 MiB as it likes: hence the highest of ten seconds, and a bound
  // above that.
  const growth = Math.max(...mib.slice(-third)) / Math.max(...mib.slice(0, third)) - 1
  return {
    title: `An endless source through compute.map for ${SETTINGS.seconds} s`,
    rows: [{ items: read, mibAfter1s: mib[0], mibAtTheEnd: mib.at(-1), growth }],
    targets: [atMost('Endless source: growth of resident memory, %', 100 * growth, 10)],
    figures: { settings: SETTINGS, items: read, mib },
  }
}

async function* naturalNumbers() {
  for (let n = 0; ; n++) yield n
}
