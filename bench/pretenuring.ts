import { setTimeout as sleep } from 'node:timers/promises'
import { align, number } from './align.ts'
import { fileHere } from './child.ts'
import { openBenchDatabase } from './database.ts'
import { interruption } from './interruption.ts'
import { startLoad } from './load.ts'
import { machine } from './machine.ts'
import { type Server, startApp } from './servers.ts'
import { median } from './statistics.ts'

/**
 * `npm run bench:pretenuring`: many processes of the service, half of them with V8's own way of
 * placing objects. Which of these go wrong is decided when a process warms up, by chance, and stays
 * so: hence many processes, not many rounds. These are the figures of
 * docs/decisions/008-no-pretenuring.md.
 */
const PROCESSES = 16
const WARM_UP_MS = 1_500
const ROUND_MS = 2_000
const CONNECTIONS = 20
/** A collection of young garbage takes 0.5 ms, or 5. */
const SLOW_MS = 1.5

const WAYS = {
  'as offloop sets it': [],
  "V8's default": ['--import', fileHere('v8-defaults.ts')],
}

interface Figures {
  perSecond: number
  /** How long the event loop stops for one collection of young garbage, on average. */
  minorGcMs: number
}

await using started = new AsyncDisposableStack()
const figures = await Promise.race([bench(), interruption()])
console.log(
  align([
    ['', 'requests/s', 'minor GC ms', 'slow processes'],
    ...Object.entries(figures).map(rowOf),
  ]),
)

async function bench(): Promise<Record<string, Figures[]>> {
  const database = started.use(await openBenchDatabase())
  const apps: { way: string; app: Server }[] = []
  for (let pass = 0; pass < PROCESSES; pass++)
    for (const [way, nodeOptions] of Object.entries(WAYS))
      apps.push({
        way,
        app: started.use(await startApp(database.url, machine.cores, { nodeOptions })),
      })
  for (const { app } of apps) await drive(app, WARM_UP_MS)
  const all: Record<string, Figures[]> = {}
  for (const { way, app } of apps) all[way] = [...(all[way] ?? []), await measureProcess(app)]
  return all
}

async function measureProcess(app: Server): Promise<Figures> {
  const before = await readMinorGc(app)
  const perSecond = await drive(app, ROUND_MS)
  const after = await readMinorGc(app)
  return {
    perSecond,
    minorGcMs: (1_000 * (after.seconds - before.seconds)) / (after.count - before.count),
  }
}

async function drive({ url }: Server, ms: number): Promise<number> {
  const load = startLoad({ url: `${url}/v1/products/500`, connections: CONNECTIONS })
  load.begin()
  await sleep(ms)
  const { perSecond, failed } = await load.end()
  if (failed > 0) throw new Error(`${url}: ${failed} requests failed`)
  return perSecond
}

async function readMinorGc({ url }: Server) {
  const page = await (await fetch(`${url}/metrics`)).text()
  const read = (suffix: string) =>
    Number(
      page.match(new RegExp(`^nodejs_gc_duration_seconds_${suffix}{kind="minor"} (.*)`, 'm'))?.[1],
    )
  return { seconds: read('sum'), count: read('count') }
}

function rowOf([way, processes]: [string, Figures[]]): string[] {
  const gcMs = processes.map(({ minorGcMs }) => minorGcMs)
  const slow = gcMs.filter((ms) => ms > SLOW_MS).length
  const perSecond = median(processes.map((process) => process.perSecond))
  return [way, number(perSecond, 0), number(median(gcMs), 2), `${slow} of ${PROCESSES}`]
}
