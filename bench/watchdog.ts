import { existsSync, readFileSync } from 'node:fs'
import '../scripts/load-env.ts'
import { align, number } from './align.ts'
import { fileHere } from './child.ts'
import { openBenchDatabase } from './database.ts'
import { measureHeld } from './held.ts'
import { interruption } from './interruption.ts'
import { machine, versionsOf } from './machine.ts'
import { type Server, startApp } from './servers.ts'
import { median, medianRatio } from './statistics.ts'
import { drive, READ_BY_ID, THROUGHPUT } from './throughput.ts'
import { writeResultJson } from './write-result.ts'

/** What Linux counts processor time in: USER_HZ. */
const TICK_MS = 10

/**
 * `npm run bench:watchdog`: reads by id with watchdog and metrics, beside the same service without
 * either.
 */
const PAIRS = 6
const WARM_UP_ROUNDS = 6
const ROUNDS = 16
/**
 * Short, because the speed of a shared machine changes within seconds: both of a round should meet
 * the same.
 */
const ROUND_MS = 500
const TARGET_RATIO = 0.97
const MAX_NAMED_AFTER_MS = 300
const MAX_ANSWER_MS = 50

const OFF = {
  nodeOptions: ['--import', fileHere('unobserved.ts')],
  env: { WATCHDOG_MS: '0', OPS_PORT: 'off' },
}

await using started = new AsyncDisposableStack()
const results = await Promise.race([bench(), interruption()])
const { on, off, ratio, cpuRatio, held } = results
console.log(
  align([
    ['', 'requests/s', 'on ÷ off', 'CPU µs each', 'off ÷ on'],
    ['off', number(off.perSecond, 0), '', number(off.cpuUs, 1), ''],
    ['on', number(on.perSecond, 0), number(ratio, 3), number(on.cpuUs, 1), number(cpuRatio, 3)],
  ]),
)
console.log(
  `\nHeld for ${number(held.heldMs, 0)} ms: named after ${number(held.namedAfterMs, 0)} ms at the latest; ` +
    `${held.answers} answers of the ops port, p50 ${number(held.opsP50Ms, 1)} ms, max ${number(held.opsMaxMs, 1)} ms`,
)
writeResultJson('watchdog.json', results)

interface Round {
  perSecond: number
  /**
   * Processor time of all the service's threads for a request, in microseconds. Whatever else the
   * machine does hardly shows in it.
   */
  cpuUs: number
}

async function bench() {
  const database = started.use(await openBenchDatabase())
  const rounds: { on: Round; off: Round }[][] = []
  for (let pair = 0; pair < PAIRS; pair++) rounds.push(await measurePair(database.url, pair))
  const figures = (of: 'on' | 'off', key: keyof Round) =>
    rounds.flat().map((round) => round[of][key])
  const medians = (of: 'on' | 'off') => ({
    perSecond: median(figures(of, 'perSecond')),
    cpuUs: median(figures(of, 'cpuUs')),
  })
  const held = await measureHeld(database.url)
  const ratio = medianRatio(figures('on', 'perSecond'), figures('off', 'perSecond'))
  return {
    measuredAt: new Date().toISOString(),
    machine,
    versions: { ...versionsOf(['hono', 'mysql2', 'prom-client']), database: database.version },
    settings: { pairs: PAIRS, warmUpRounds: WARM_UP_ROUNDS, rounds: ROUNDS, roundMs: ROUND_MS },
    on: medians('on'),
    off: medians('off'),
    ratio,
    cpuRatio: medianRatio(figures('off', 'cpuUs'), figures('on', 'cpuUs')),
    held,
    rounds,
    targets: [
      { name: 'throughput on by off', atLeast: TARGET_RATIO, value: ratio },
      { name: 'named after, ms', atMost: MAX_NAMED_AFTER_MS, value: held.namedAfterMs },
      { name: 'answers of the ops port, ms', atMost: MAX_ANSWER_MS, value: held.opsMaxMs },
    ],
  }
}

/** Two fresh processes in turns. */
async function measurePair(databaseUrl: string, pair: number) {
  await using on = await startApp(databaseUrl, machine.cores)
  await using off = await startApp(databaseUrl, machine.cores, OFF)
  const rounds: { on: Round; off: Round }[] = []
  for (let round = -WARM_UP_ROUNDS; round < ROUNDS; round++) {
    const onFirst = (round + pair) % 2 === 0
    const first = await measureRound(onFirst ? on : off)
    const second = await measureRound(onFirst ? off : on)
    if (round >= 0) rounds.push(onFirst ? { on: first, off: second } : { on: second, off: first })
  }
  return rounds
}

async function measureRound({ url, pid }: Server): Promise<Round> {
  const before = cpuMsOf(pid)
  const { perSecond } = await drive(url, READ_BY_ID, ROUND_MS)
  // The lead-in counts for the processor, too: about as many requests in each of its moments.
  const requests = (perSecond * (THROUGHPUT.leadInMs + ROUND_MS)) / 1_000
  return { perSecond, cpuUs: (1_000 * (cpuMsOf(pid) - before)) / requests }
}

/** On Linux; not known elsewhere. */
function cpuMsOf(pid: number): number {
  if (!existsSync('/proc/self/stat')) return Number.NaN
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ')
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS
}
