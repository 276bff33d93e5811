import type { Bench, Table } from '../support/bench.ts'
import { canPin, leaveServerCore, useAllCores } from '../support/cores.ts'
import { openBenchDatabase } from '../support/database.ts'
import { POOL_SIZE } from '../support/servers.ts'
import { number } from '../support/table.ts'
import {
  measureOpenLoad,
  OPEN_LOAD,
  type OpenLoadRow,
  openLoadMs,
  QUICK_OPEN_LOAD,
} from './open-load.ts'
import {
  type Comparison,
  measureRounds,
  QUICK_ROUNDS,
  ROUNDS,
  type RoundsRow,
  roundsMs,
} from './rounds.ts'

interface ConnectionsFigures {
  comparisons: Comparison[]
  rows: RoundsRow[]
  openLoad: OpenLoadRow[]
}

const START_MS = 2_000

export const bench: Bench<ConnectionsFigures> = {
  description: 'ever more connections, beside bare node:http and Fastify; ten minutes',
  packages: ['hono', '@hono/node-server', 'mysql2', 'kysely', 'fastify', 'undici'],

  async run({ started, progress, quick }) {
    const rounds = quick ? QUICK_ROUNDS : ROUNDS
    const openLoad = quick ? QUICK_OPEN_LOAD : OPEN_LOAD
    progress.expect(roundsMs(rounds) + openLoadMs(openLoad) + 2 * START_MS)

    leaveServerCore()
    const pinned = started.use(await openBenchDatabase())
    const { rows, comparisons } = await measureRounds(pinned.url, rounds, progress)
    await pinned[Symbol.asyncDispose]()

    useAllCores()
    const database = started.use(await openBenchDatabase())
    const figures = {
      versions: { database: database.version },
      settings: {
        poolSize: POOL_SIZE,
        flushLogAtCommit: database.flushLogAtCommit,
        ...rounds,
        openLoad,
        serversOnOwnCore: canPin,
        quick,
      },
      comparisons,
      rows,
      openLoad: await measureOpenLoad(database.url, openLoad, progress),
    }
    return { tables: toTables(figures), figures }
  },

  summarise: ({ comparisons, rows }) =>
    comparisons.map(({ endpoint, connections, ofFloor, ofFastify }) => {
      const row = rows.find(
        (each) =>
          each.endpoint === endpoint &&
          each.connections === connections &&
          each.server === 'offloop',
      )
      return [
        `\`${endpoint}\`, ${connections} connections, one core`,
        `${number(row?.goodPerSecond, 0)}/s`,
        `${number(ofFloor, 2)} of bare node:http + mysql2, ${number(ofFastify, 2)} × Fastify with its plugins`,
      ]
    }),
}

const toTables = ({ comparisons, rows, openLoad }: ConnectionsFigures): Table[] => [
  {
    title: 'Ever more connections',
    rows: rows.map((row) => ({ ...row, failures: JSON.stringify(row.failures) })),
  },
  { title: 'offloop by the others', rows: comparisons },
  { title: 'Open load: requests by the clock, answered or not', rows: openLoad },
]
