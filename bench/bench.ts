import '../scripts/load-env.ts'
import { mkdirSync, writeFileSync } from 'node:fs'
import { chartOf } from './chart.ts'
import { fileHere } from './child.ts'
import { openBenchDatabase } from './database.ts'
import { machine } from './machine.ts'
import { measureResponsiveness } from './responsiveness.ts'
import { collectResults, type Results } from './results.ts'
import { startApp, startFloor } from './servers.ts'
import { tableOf } from './table.ts'
import { measureThroughput } from './throughput.ts'

/**
 * `npm run bench`: the service in production mode on a database of its own, measured from outside: what it adds to bare
 * node:http and mysql2, and whether a light endpoint stays fast while heavy requests keep every core busy.
 */
await using started = new AsyncDisposableStack()
const results = await Promise.race([bench(), interruption()])
console.log(`\n${tableOf(results)}`)

mkdirSync(fileHere('results'), { recursive: true })
const shorten = (_: string, value: unknown) => (typeof value === 'number' ? Math.round(value * 1_000) / 1_000 : value)
writeFileSync(fileHere('results/latest.json'), `${JSON.stringify(results, shorten, 2)}\n`)
writeFileSync(fileHere('results/latency.svg'), chartOf(results))
console.log('\nWrote bench/results/latest.json and bench/results/latency.svg')

async function bench(): Promise<Results> {
  const database = started.use(await openBenchDatabase())
  const app = started.use(await startApp(database.url, machine.cores))
  const floor = started.use(await startFloor(database.url))
  const oneThread = started.use(await startApp(database.url, 1))

  console.log('Measuring throughput')
  const throughput = await measureThroughput(app.url, floor.url)
  console.log('Measuring a light endpoint under heavy load')
  const phases = await measureResponsiveness(app.url, oneThread.url)
  return collectResults(database, throughput, phases)
}

/** Ctrl-C stops all that was started, too. */
function interruption(): Promise<never> {
  return new Promise((_, reject) => process.once('SIGINT', () => reject(new Error('Interrupted'))))
}
