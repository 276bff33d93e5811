import { setTimeout as sleep } from 'node:timers/promises'
import { ClosedLoop, type LoopFigures } from '../support/closed-loop.ts'
import { machine } from '../support/machine.ts'
import type { Progress } from '../support/progress.ts'
import { startApp } from '../support/servers.ts'
import { PRIMES } from './rounds.ts'

/** Linux takes all of 127.0.0.0/8 for itself. */
const CLIENTS = [
  { localAddress: '127.0.0.2', connections: 100 },
  { localAddress: '127.0.0.3', connections: 1 },
]

export const TWO_CLIENTS = { leadInMs: 2_000, roundMs: 5_000 }
/** What `--quick` does instead. */
export const QUICK_TWO_CLIENTS = { leadInMs: 500, roundMs: 1_500 }

export interface ClientRow extends LoopFigures {
  localAddress: string
  connections: number
  /** Of all counts of primes that were served. */
  share: number
}

/**
 * Counts of primes for two clients at once, of which one has a hundred times the connections of the
 * other.
 */
export async function measureTwoClients(
  databaseUrl: string,
  { leadInMs, roundMs }: typeof TWO_CLIENTS,
  progress: Progress,
): Promise<ClientRow[]> {
  await using app = await startApp(databaseUrl, machine.cores)
  progress.next('two clients, 100 connections and 1', leadInMs + roundMs)
  const { url } = app
  const loops = CLIENTS.map(({ localAddress, connections }) => ({
    localAddress,
    connections,
    loop: new ClosedLoop({ url, nextRequest: PRIMES.nextRequest, localAddress }, connections),
  }))
  await sleep(leadInMs)
  for (const { loop } of loops) loop.begin()
  await sleep(roundMs)
  const ended = loops.map(({ loop, ...client }) => ({ ...client, ...loop.end() }))
  const all = ended.reduce((sum, { goodPerSecond }) => sum + goodPerSecond, 0)
  return ended.map((client) => ({ ...client, share: client.goodPerSecond / all }))
}
