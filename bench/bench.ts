import '../scripts/load-env.ts'
import { chartOf } from './chart.ts'
import { CONNECTIONS, connectionsMs, measureConnections, QUICK_CONNECTIONS } from './connections.ts'
import { connectionsTable } from './connections-table.ts'
import { openBenchDatabase } from './database.ts'
import { measureDeparture } from './departure.ts'
import { interruption } from './interruption.ts'
import { machine } from './machine.ts'
import { measureOpenLoad, OPEN_LOAD, openLoadMs, QUICK_OPEN_LOAD } from './open-load.ts'
import { measurePhases, phasesMs } from './phases.ts'
import { canPin, leaveServerCore, useAllCores } from './process.ts'
import { Progress } from './progress.ts'
import { QUICK_RESPONSIVENESS, RESPONSIVENESS, responsivenessPhases } from './responsiveness.ts'
import { collectResults, conditionsOf } from './results.ts'
import { startApp } from './servers.ts'
import { tableOf } from './table.ts'
import { drive, READ_BY_ID } from './throughput.ts'
import { measureTwoClients, QUICK_TWO_CLIENTS, TWO_CLIENTS } from './two-clients.ts'
import { writeResult, writeResultJson } from './write-result.ts'

/**
 * `npm run bench`: the service in production mode on a database of its own, measured from outside.
 * Its parts, all of them or those that are named: `connections`, ever more of them, beside bare
 * node:http and Fastify; and `light`, whether a light endpoint stays fast while heavy requests keep
 * every core busy. `--quick` takes a minute, and is good for a first look only.
 */
const PARTS = ['connections', 'light']
const WARM_UP_MS = 4_000
const QUICK_WARM_UP_MS = 1_500
const DEPARTURE_MS = 4_000
const START_MS = 2_000

const options = ['--quick', '--save']
const named = process.argv.slice(2).filter((argument) => !options.includes(argument))
for (const name of named)
  if (!PARTS.includes(name))
    throw new Error(`Expected some of ${[...PARTS, ...options].join(', ')}, got ${name}`)
const isWanted = (part: string) => named.length === 0 || named.includes(part)
const quick = process.argv.includes('--quick')

await using started = new AsyncDisposableStack()
await Promise.race([bench(), interruption()])

async function bench() {
  if (isWanted('connections')) await benchConnections()
  if (isWanted('light')) await benchLight()
}

async function benchConnections() {
  const connections = quick ? QUICK_CONNECTIONS : CONNECTIONS
  const openLoad = quick ? QUICK_OPEN_LOAD : OPEN_LOAD
  const twoClients = quick ? QUICK_TWO_CLIENTS : TWO_CLIENTS
  const twoClientsMs = twoClients.leadInMs + twoClients.roundMs
  const progress = new Progress(
    connectionsMs(connections) + openLoadMs(openLoad) + twoClientsMs + 3 * START_MS,
  )
  leaveServerCore()
  const pinned = started.use(await openBenchDatabase())
  const { rows, comparisons } = await measureConnections(pinned.url, connections, progress)
  await pinned[Symbol.asyncDispose]()

  useAllCores()
  const database = started.use(await openBenchDatabase())
  const open = await measureOpenLoad(database.url, openLoad, progress)
  const clients = await measureTwoClients(database.url, twoClients, progress)
  progress.end()
  const settings = { ...connections, openLoad, twoClients, serversOnOwnCore: canPin, quick }
  const results = {
    ...conditionsOf(database, settings),
    comparisons,
    rows,
    openLoad: open,
    twoClients: clients,
  }
  console.log(`\n${connectionsTable(results)}\n`)
  writeResultJson('connections.json', results)
}

async function benchLight() {
  const settings = quick ? QUICK_RESPONSIVENESS : RESPONSIVENESS
  const warmUpMs = quick ? QUICK_WARM_UP_MS : WARM_UP_MS
  const progress = new Progress(
    START_MS + 2 * warmUpMs + phasesMs(responsivenessPhases(settings)) + DEPARTURE_MS,
  )
  const database = started.use(await openBenchDatabase())
  const app = started.use(await startApp(database.url, machine.cores))
  const oneThread = started.use(await startApp(database.url, 1))
  // What is measured is a service that has been at work for a while.
  for (const { url } of [app, oneThread]) {
    progress.next('reads by id warm up', warmUpMs)
    await drive(url, READ_BY_ID, warmUpMs)
  }
  const phases = await measurePhases(
    responsivenessPhases(settings, app.url, oneThread.url),
    settings,
    progress,
  )
  progress.next('a client leaves', DEPARTURE_MS)
  const departure = await measureDeparture(app.url)
  progress.end()
  const results = collectResults(database, settings, phases, departure)
  console.log(`\n${tableOf(results)}\n`)
  writeResultJson('latest.json', results)
  writeResult('latency.svg', chartOf(results))
}
