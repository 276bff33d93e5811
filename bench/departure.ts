import { setTimeout as sleep } from 'node:timers/promises'
import { machine } from './machine.ts'
import { median } from './statistics.ts'

/** How it is measured; the results name all of it. */
export const DEPARTURE = { path: '/v1/primes?to=50000000', rounds: 20 } as const

const POLL_MS = 1
const TIMEOUT_MS = 10_000

export interface DepartureFigures {
  medianMs: number
  maxMs: number
}

/**
 * How soon all threads are free again once the client of a long request has left; each look at
 * `/metrics` is in it.
 */
export async function measureDeparture(appUrl: string): Promise<DepartureFigures> {
  const tookMs: number[] = []
  for (let round = 0; round < DEPARTURE.rounds; round++) {
    const client = new AbortController()
    fetch(appUrl + DEPARTURE.path, { signal: client.signal }).catch(() => {})
    await untilBusy(appUrl, machine.cores)
    const leftAt = performance.now()
    client.abort()
    await untilBusy(appUrl, 0)
    tookMs.push(performance.now() - leftAt)
  }
  return { medianMs: median(tookMs), maxMs: Math.max(...tookMs) }
}

/** @throws Error after ten seconds. */
async function untilBusy(appUrl: string, threads: number): Promise<void> {
  for (
    const deadline = performance.now() + TIMEOUT_MS;
    (await busyThreads(appUrl)) !== threads;
    await sleep(POLL_MS)
  )
    if (performance.now() > deadline)
      throw new Error(`Not within ${TIMEOUT_MS} ms: ${threads} busy threads`)
}

async function busyThreads(appUrl: string): Promise<number> {
  const page = await (await fetch(`${appUrl}/metrics`)).text()
  return Number(page.match(/^compute_threads_busy (\d+)$/m)?.[1])
}
