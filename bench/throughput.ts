import { setTimeout as sleep } from 'node:timers/promises'
import type autocannon from 'autocannon'
import { type LoadFigures, startLoad } from './load.ts'

/** How a read by id is driven. */
export const THROUGHPUT = { leadInMs: 300, connections: 20 } as const

/** Between two loads: connections that the last one cut off are closed and replaced. */
const PAUSE_MS = 200

/**
 * Reads by id: what costs the service the least, so that whatever is added to a request shows most.
 */
export const READ_BY_ID: Omit<autocannon.Options, 'url'> = {
  // Those that the database is seeded with, read in turn.
  requests: Array.from({ length: 100 }, (_, index) => ({ path: `/v1/products/${index * 10 + 1}` })),
}

/** One round of load on an endpoint. @throws Error when any answer was not a 2xx. */
export async function drive(
  url: string,
  options: Omit<autocannon.Options, 'url'>,
  roundMs: number,
): Promise<LoadFigures> {
  const load = startLoad({ url, connections: THROUGHPUT.connections, ...options })
  await sleep(THROUGHPUT.leadInMs)
  load.begin()
  await sleep(roundMs)
  const figures = await load.end()
  await sleep(PAUSE_MS)
  if (figures.failed > 0) throw new Error(`${url}: ${figures.failed} requests failed`)
  return figures
}
