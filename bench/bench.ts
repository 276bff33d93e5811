import '../scripts/load-env.ts'
import { chartOf } from './chart.ts'
import { openBenchDatabase } from './database.ts'
import { measureDeparture } from './departure.ts'
import { interruption } from './interruption.ts'
import { machine } from './machine.ts'
import { measureResponsiveness } from './responsiveness.ts'
import { collectResults, type Results } from './results.ts'
import { startApp } from './servers.ts'
import { tableOf } from './table.ts'
import { drive, measureThroughput, READ_BY_ID } from './throughput.ts'
import { writeResult, writeResultJson } from './write-result.ts'

const WARM_UP_MS = 4_000

/**
 * `npm run bench`: the service in production mode on a database of its own, measured from outside: what it adds to bare
 * node:http and mysql2, and whether a light endpoint stays fast while heavy requests keep every core busy.
 */
await using started = new AsyncDisposableStack()
const results = await Promise.race([bench(), interruption()])
console.log(`\n${tableOf(results)}\n`)
writeResultJson('latest.json', results)
writeResult('latency.svg', chartOf(results))

async function bench(): Promise<Results> {
  const database = started.use(await openBenchDatabase())
  console.log('Measuring throughput')
  const throughput = await measureThroughput(database.url)

  console.log('Measuring a light endpoint under heavy load')
  const app = started.use(await startApp(database.url, machine.cores))
  const oneThread = started.use(await startApp(database.url, 1))
  // What is measured is a service that has been at work for a while.
  for (const { url } of [app, oneThread]) await drive(url, READ_BY_ID.options, WARM_UP_MS)
  const phases = await measureResponsiveness(app.url, oneThread.url)
  const departure = await measureDeparture(app.url)
  return collectResults(database, throughput, phases, departure)
}
