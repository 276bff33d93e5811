import { atLeast, atMost, type Bench } from '../support/bench.ts'
import { cpuMs } from '../support/cores.ts'
import { openBenchDatabase } from '../support/database.ts'
import { DRIVE, drive } from '../support/load.ts'
import { machine } from '../support/machine.ts'
import { type Server, startApp } from '../support/servers.ts'
import { median, medianRatio } from '../support/statistics.ts'
import { number } from '../support/table.ts'
import { type BlockedFigures, measureBlocked } from './blocked.ts'
import { READ_BY_ID } from './requests.ts'

/** How fast a process gets is partly chance: hence several pairs. */
const PAIRS = 6
const WARM_UP_ROUNDS = 6
const ROUNDS = 16
/** Short, because the speed of a shared machine changes within seconds. */
const ROUND_MS = 500
const PAIR_MS = (WARM_UP_ROUNDS + ROUNDS) * 2 * (ROUND_MS + DRIVE.leadInMs + 200) + 2_000
const BLOCKED_MS = 30_000

const OFF = {
  nodeOptions: ['--import', new URL('./unobserved.ts', import.meta.url).href],
  env: { WATCHDOG_MS: '0', OPS_PORT: 'off' },
}

interface Round {
  perSecond: number
  /** Processor time of all the service's threads for a request, in microseconds. */
  cpuUs: number
}

interface WatchdogFigures {
  on: Round
  off: Round
  ratio: number
  cpuRatio: number
  blocked: BlockedFigures
}

export const bench: Bench<WatchdogFigures> = {
  description: 'what watchdog and metrics cost a read by id, and what they know; three minutes',
  packages: ['hono', 'mysql2', 'prom-client'],

  async run({ started, progress }) {
    progress.expect(PAIRS * PAIR_MS + BLOCKED_MS)
    const database = started.use(await openBenchDatabase())
    const rounds: { on: Round; off: Round }[][] = []
    for (let pair = 0; pair < PAIRS; pair++) {
      progress.next(`pair ${pair + 1} of ${PAIRS}`, PAIR_MS)
      rounds.push(await measurePair(database.url, pair))
    }
    progress.next('the event loop is blocked', BLOCKED_MS)
    const blocked = await measureBlocked(database.url)
    const pick = (which: 'on' | 'off', key: keyof Round) =>
      rounds.flat().map((round) => round[which][key])
    const medians = (which: 'on' | 'off') => ({
      perSecond: median(pick(which, 'perSecond')),
      cpuUs: median(pick(which, 'cpuUs')),
    })
    const [on, off] = [medians('on'), medians('off')]
    const ratio = medianRatio(pick('on', 'perSecond'), pick('off', 'perSecond'))
    const cpuRatio = medianRatio(pick('off', 'cpuUs'), pick('on', 'cpuUs'))
    return {
      tables: [
        {
          title: 'Reads by id',
          rows: [
            { what: 'off', ...off },
            { what: 'on', ...on },
          ],
        },
        { title: 'On ÷ off', rows: [{ ratio, cpuRatio }] },
        { title: 'Blocked', rows: [blocked] },
      ],
      figures: {
        versions: { database: database.version },
        settings: { pairs: PAIRS, warmUpRounds: WARM_UP_ROUNDS, rounds: ROUNDS, roundMs: ROUND_MS },
        on,
        off,
        ratio,
        cpuRatio,
        blocked,
        rounds,
      },
      targets: [
        atLeast('throughput on by off', ratio, 0.97),
        atMost('named after, ms', blocked.namedAfterMs, 300),
        atMost('answers of the ops port, ms', blocked.opsMaxMs, 50),
      ],
    }
  },

  summarise: ({ ratio, blocked }) => [
    [
      'reads by id with watchdog and metrics',
      `${number(ratio, 2)} of without`,
      `a block is named after ${number(blocked.namedAfterMs, 0)} ms, probes are answered within ${number(blocked.opsMaxMs, 0)} ms meanwhile`,
    ],
  ],
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
  const before = cpuMs(pid)
  const { perSecond } = await drive(url, READ_BY_ID, ROUND_MS)
  // The lead-in counts for the processor, too: about as many requests in each of its moments.
  const requests = (perSecond * (DRIVE.leadInMs + ROUND_MS)) / 1_000
  return { perSecond, cpuUs: (1_000 * (cpuMs(pid) - before)) / requests }
}
