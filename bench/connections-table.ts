import { align, number } from './align.ts'
import type { Comparison, ConnectionsRow } from './connections.ts'
import type { OpenLoadRow } from './open-load.ts'
import type { ClientRow } from './two-clients.ts'

interface ConnectionsResults {
  comparisons: Comparison[]
  rows: ConnectionsRow[]
  openLoad: OpenLoadRow[]
  twoClients: ClientRow[]
}

/** What the connections part found, for a terminal. */
export function connectionsTable({
  comparisons,
  rows,
  openLoad,
  twoClients,
}: ConnectionsResults): string {
  const endpoints = [...new Set(rows.map(({ endpoint }) => endpoint))]
  return [
    ...endpoints.flatMap((endpoint) => [
      endpoint,
      endpointTable(rows.filter((row) => row.endpoint === endpoint)),
      '',
    ]),
    align([
      ['offloop by the others', 'connections', '÷ floor', '÷ Fastify'],
      ...comparisons.map(({ endpoint, connections, ofFloor, ofFastify }) => [
        endpoint,
        String(connections),
        number(ofFloor, 2),
        number(ofFastify, 2),
      ]),
    ]),
    '\nOpen load: requests by the clock, answered or not',
    align([
      [
        '',
        '× capacity',
        'sent/s',
        'good/s',
        '÷ capacity',
        'refused',
        'p50 ms',
        'p99 ms',
        'failed',
        'light p50',
        'p99',
        'failed',
        'MiB',
      ],
      ...openLoad.map(openLoadCells),
    ]),
    '\nTwo clients that count primes at once',
    align([
      ['', 'connections', 'good/s', 'share', 'refused', 'p99 ms'],
      ...twoClients.map((client) => [
        client.localAddress,
        String(client.connections),
        number(client.goodPerSecond, 1),
        percent(client.share),
        percent(client.refusedShare),
        number(client.p99Ms, 0),
      ]),
    ]),
  ].join('\n')
}

const endpointTable = (rows: ConnectionsRow[]) =>
  align([
    ['', 'connections', 'good/s', 'refused', 'p50 ms', 'p99 ms', 'served', 'CPU µs', 'busy', ''],
    ...rows.map((row) => [
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
    ]),
  ])

const openLoadCells = (row: OpenLoadRow) => [
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

const percent = (share: number) => `${number(100 * share, share > 0 && share < 0.1 ? 1 : 0)} %`
