import type { Bench } from '../support/bench.ts'
import { canPin, leaveServerCore, useAllCores } from '../support/cores.ts'
import { openBenchDatabase } from '../support/database.ts'
import { POOL_SIZE } from '../support/servers.ts'
import { number, percent } from '../support/table.ts'
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
import { type ClientRow, measureTwoClients, QUICK_TWO_CLIENTS, TWO_CLIENTS } from './two-clients.ts'

interface ConnectionsFigures {
  comparisons: Comparison[]
  rows: RoundsRow[]
  openLoad: OpenLoadRow[]
  twoClients: ClientRow[]
}

const START_MS = 2_000

export const bench: Bench<ConnectionsFigures> = {
  description: 'ever more connections, beside bare node:http and Fastify; ten minutes',
  packages: ['hono', '@hono/node-server', 'mysql2', 'kysely', 'fastify', 'undici'],

  async run({ started, progress, quick }) {
    const rounds = quick ? QUICK_ROUNDS : ROUNDS
    const openLoad = quick ? QUICK_OPEN_LOAD : OPEN_LOAD
    const twoClients = quick ? QUICK_TWO_CLIENTS : TWO_CLIENTS
    const twoClientsMs = twoClients.leadInMs + twoClients.roundMs
    progress.expect(roundsMs(rounds) + openLoadMs(openLoad) + twoClientsMs + 3 * START_MS)

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
        twoClients,
        serversOnOwnCore: canPin,
        quick,
      },
      comparisons,
      rows,
      openLoad: await measureOpenLoad(database.url, openLoad, progress),
      twoClients: await measureTwoClients(database.url, twoClients, progress),
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

function toTables({ comparisons, rows, openLoad, twoClients }: ConnectionsFigures) {
  const endpoints = [...new Set(rows.map(({ endpoint }) => endpoint))]
  return [
    ...endpoints.map((endpoint) => ({
      title: endpoint,
      rows: [
        [
          ...['', 'connections', 'good/s', 'refused', 'p50 ms', 'p99 ms', 'served'],
          ...['CPU µs', 'busy', ''],
        ],
        ...rows.filter((row) => row.endpoint === endpoint).map(toCells),
      ],
    })),
    {
      title: 'Comparison',
      rows: [
        ['offloop by the others', 'connections', '÷ floor', '÷ Fastify'],
        ...comparisons.map(({ endpoint, connections, ofFloor, ofFastify }) => [
          endpoint,
          String(connections),
          number(ofFloor, 2),
          number(ofFastify, 2),
        ]),
      ],
    },
    {
      title: 'Open load: requests by the clock, answered or not',
      rows: [
        [
          ...['', '× capacity', 'sent/s', 'good/s', '÷ capacity', 'refused', 'p50 ms', 'p99 ms'],
          ...['failed', 'light p50', 'p99', 'failed', 'MiB'],
        ],
        ...openLoad.map(toOpenLoadCells),
      ],
    },
    {
      title: 'Two clients that count primes at once',
      rows: [
        ['', 'connections', 'good/s', 'share', 'refused', 'p99 ms'],
        ...twoClients.map((client) => [
          client.localAddress,
          String(client.connections),
          number(client.goodPerSecond, 1),
          percent(client.share),
          percent(client.refusedShare),
          number(client.p99Ms, 0),
        ]),
      ],
    },
  ]
}

const toCells = (row: RoundsRow) => [
  row.server,
  String(row.connections),
  number(row.goodPerSecond, row.goodPerSecond < 100 ? 1 : 0),
  percent(row.refusedShare),
  number(row.p50Ms, 1),
  number(row.p99Ms, 1),
  String(row.clientsServed),
  number(row.cpuUs, 0),
  number(row.busy, 2),
  Object.entries(row.failures)
    .map(([what, times]) => `FAILED: ${times} × ${what}`)
    .join(', '),
]

const toOpenLoadCells = (row: OpenLoadRow) => [
  row.kind,
  row.factor === 0 ? 'idle' : number(row.factor, 1),
  number(row.sentPerSecond, 1),
  number(row.goodPerSecond, 1),
  number(row.ofCapacity, 2),
  percent(row.refusedShare),
  number(row.p50Ms, 0),
  number(row.p99Ms, 0),
  String(row.failed),
  number(row.lightP50Ms, 2),
  number(row.lightP99Ms, 2),
  String(row.lightFailed),
  number(row.memoryMiB, 0),
]
