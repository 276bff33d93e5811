import { setTimeout as sleep } from 'node:timers/promises'
import { atMost, type Bench } from '../support/bench.ts'
import { ClosedLoop } from '../support/closed-loop.ts'
import { openBenchDatabase } from '../support/database.ts'
import { machine } from '../support/machine.ts'
import { type App, readMetric, startApp } from '../support/servers.ts'
import { PRIMES } from './rounds.ts'

/** Linux takes all of 127.0.0.0/8 for itself. */
const MANY = { localAddress: '127.0.0.2', connections: 1_000 }
const ONE = { localAddress: '127.0.0.3', connections: 1 }

const SETTINGS = { leadInMs: 5_000, roundMs: 20_000 }
const QUICK = { leadInMs: 1_000, roundMs: 3_000 }
/** The service refuses what would wait for half of it: here all of them wait. */
const REQUEST_TIMEOUT_MS = 600_000

export const bench: Bench = {
  description: 'two clients, of which one has 1 000 heavy requests waiting; Linux, a minute',
  packages: [],

  async run({ started, progress, quick }) {
    const settings = quick ? QUICK : SETTINGS
    const { leadInMs, roundMs } = settings
    progress.expect(2 * (leadInMs + roundMs))
    const database = started.use(await openBenchDatabase())
    const env = { REQUEST_TIMEOUT_MS: String(REQUEST_TIMEOUT_MS) }
    const app = started.use(await startApp(database.url, machine.cores, { env }))
    progress.next('a client alone', leadInMs + roundMs)
    const [alone] = await measure(app, [ONE], settings)
    progress.next('the same beside 1 000 requests', leadInMs + roundMs)
    const [beside, many] = await measure(app, [ONE, MANY], settings)
    const times = (pick: 'p50Ms' | 'p99Ms') => (beside?.[pick] ?? NaN) / (alone?.[pick] ?? NaN)
    const rows = [
      { client: 'one request at a time, alone', ...alone },
      { client: 'the same beside 1 000', ...beside },
      { client: '1 000 at a time', ...many },
    ]
    return {
      tables: [{ title: 'Counts of primes for two clients', rows }],
      figures: { settings: { ...settings, threads: machine.cores, quick }, rows },
      targets: [
        atMost('Beside 1 000 requests: p50 ÷ alone', times('p50Ms'), 2),
        atMost('Beside 1 000 requests: p99 ÷ alone', times('p99Ms'), 2),
      ],
    }
  },
}

async function measure(
  { url, opsUrl }: App,
  clients: readonly (typeof ONE)[],
  { leadInMs, roundMs }: typeof SETTINGS,
) {
  const loops = clients.map(
    ({ connections, localAddress }) =>
      new ClosedLoop({ url, nextRequest: PRIMES.nextRequest, localAddress }, connections),
  )
  await sleep(leadInMs)
  for (const loop of loops) loop.begin()
  await sleep(roundMs)
  const queued = await readMetric(opsUrl, 'compute_queued')
  return loops.map((loop) => {
    const { goodPerSecond, refusedShare, p50Ms, p99Ms, failures } = loop.end()
    return { goodPerSecond, p50Ms, p99Ms, refusedShare, queued, failures: JSON.stringify(failures) }
  })
}
