import { detachedContext } from '@offloop/workpool/task'
import { countPrimesIn } from '../../src/features/primes/compute.ts'
import { timeMs } from '../support/in-turns.ts'
import { machine } from '../support/machine.ts'
import { startApp } from '../support/servers.ts'
import { median } from '../support/statistics.ts'

/** For about how long the event loop is blocked. */
const BLOCK_MS = 4_000
/** Below it, counting primes takes some tenth of a second: enough to tell how fast this is. */
const SAMPLE = 1_000_000
/** Of what the watchdog's thread answers at once: `/health/ready` waits for the event loop. */
const OPS_PATHS = ['/health/live', '/metrics']
/** Each in a fresh process, because the watchdog rests after it took a stack sample. */
const STARTS = 5

/** What a scrape and a probe meet while the event loop is blocked. */
export interface BlockedFigures {
  /** For how long it was blocked: the median. */
  blockedMs: number
  /** From the request that blocks it until its blocking frame is known: the highest. */
  namedAfterMs: number
  /** How long the ops port took to answer meanwhile. */
  opsP50Ms: number
  opsMaxMs: number
  answers: number
}

/** Blocks the event loop of fresh services and keeps asking their ops port. */
export async function measureBlocked(databaseUrl: string): Promise<BlockedFigures> {
  const starts: Awaited<ReturnType<typeof blockOnce>>[] = []
  for (let start = 0; start < STARTS; start++) starts.push(await blockOnce(databaseUrl))
  const tookMs = starts.flatMap((start) => start.tookMs)
  return {
    blockedMs: median(starts.map(({ blockedMs }) => blockedMs)),
    namedAfterMs: Math.max(...starts.map(({ namedAfterMs }) => namedAfterMs)),
    opsP50Ms: median(tookMs),
    opsMaxMs: Math.max(...tookMs),
    answers: tookMs.length,
  }
}

async function blockOnce(databaseUrl: string) {
  await using app = await startApp(databaseUrl, machine.cores)
  for (const path of OPS_PATHS) await ask(app.opsUrl + path)
  const to = await primesFor(BLOCK_MS)
  let isBlocked = true
  const startedAt = performance.now()
  const blocking = ask(`${app.url}/v1/primes?to=${to}&mode=inline`).then(({ ms }) => {
    isBlocked = false
    return ms
  })
  let namedAfterMs = Number.POSITIVE_INFINITY
  const tookMs: number[] = []
  while (isBlocked)
    for (const path of OPS_PATHS) {
      const { text, ms } = await ask(app.opsUrl + path)
      tookMs.push(ms)
      if (path === '/health/live' && text.includes('"blockingFrame"'))
        namedAfterMs = Math.min(namedAfterMs, performance.now() - startedAt)
    }
  return { blockedMs: await blocking, namedAfterMs, tookMs }
}

/** How far this machine counts primes in that time: all below n take some n^1.5. */
async function primesFor(ms: number): Promise<number> {
  const sampleMs = await timeMs(() => countPrimesIn({ from: 0, to: SAMPLE }, detachedContext))
  return Math.round(SAMPLE * (ms / sampleMs) ** (2 / 3))
}

async function ask(url: string) {
  const startedAt = performance.now()
  const text = await (await fetch(url)).text()
  return { text, ms: performance.now() - startedAt }
}
