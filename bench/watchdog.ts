import '../scripts/load-env.ts'
import { align, number } from './align.ts'
import { fileHere } from './child.ts'
import { openBenchDatabase } from './database.ts'
import { interruption } from './interruption.ts'
import { machine, versionsOf } from './machine.ts'
import { startApp } from './servers.ts'
import { median, medianRatio } from './statistics.ts'
import { drive, READ_BY_ID, THROUGHPUT } from './throughput.ts'
import { writeResultJson } from './write-result.ts'

/** `npm run bench:watchdog`: reads by id with watchdog and metrics, beside the same service without either. */
const PAIRS = 6
const WARM_UP_ROUNDS = 2
const ROUNDS = 4
const TARGET_RATIO = 0.97

const OFF = {
  nodeOptions: ['--import', fileHere('unobserved.ts')],
  env: { WATCHDOG_MS: '0', OPS_PORT: 'off' },
}

await using started = new AsyncDisposableStack()
const results = await Promise.race([bench(), interruption()])
const { on, off, ratio, pairs } = results
console.log(
  align([
    ['', 'requests/s', 'on ÷ off', 'lowest pair', 'highest pair'],
    ['off', number(off, 0)],
    ['on', number(on, 0), ...[ratio, Math.min(...pairs), Math.max(...pairs)].map((value) => number(value, 3))],
  ]),
)
writeResultJson('watchdog.json', results)

async function bench() {
  const database = started.use(await openBenchDatabase())
  const rounds: { on: number; off: number }[][] = []
  for (let pair = 0; pair < PAIRS; pair++) rounds.push(await measurePair(database.url, pair))
  const rates = (of: 'on' | 'off') => rounds.flat().map((round) => round[of])
  const ratio = medianRatio(rates('on'), rates('off'))
  return {
    measuredAt: new Date().toISOString(),
    machine,
    versions: { ...versionsOf(['hono', 'mysql2', 'prom-client']), database: database.version },
    settings: { pairs: PAIRS, warmUpRounds: WARM_UP_ROUNDS, rounds: ROUNDS, roundMs: THROUGHPUT.roundMs },
    on: median(rates('on')),
    off: median(rates('off')),
    ratio,
    pairs: rounds.map((pair) =>
      medianRatio(
        pair.map((round) => round.on),
        pair.map((round) => round.off),
      ),
    ),
    rounds,
    targets: [{ name: 'throughput on by off', limit: TARGET_RATIO, value: ratio }],
  }
}

/** Two fresh processes in turns. */
async function measurePair(databaseUrl: string, pair: number) {
  await using on = await startApp(databaseUrl, machine.cores)
  await using off = await startApp(databaseUrl, machine.cores, OFF)
  const rate = async ({ url }: { url: string }) => (await drive(url, READ_BY_ID.options)).perSecond
  const rounds: { on: number; off: number }[] = []
  for (let round = -WARM_UP_ROUNDS; round < ROUNDS; round++) {
    const onFirst = (round + pair) % 2 === 0
    const first = await rate(onFirst ? on : off)
    const second = await rate(onFirst ? off : on)
    if (round >= 0) rounds.push(onFirst ? { on: first, off: second } : { on: second, off: first })
  }
  return rounds
}
