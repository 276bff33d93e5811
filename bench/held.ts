import { UNCANCELLABLE } from '@offloop/workpool/implement'
import { countPrimesIn } from '../src/features/primes/compute.ts'
import { millisecondsOf } from './compute/in-turns.ts'
import { machine } from './machine.ts'
import { startApp } from './servers.ts'
import { median } from './statistics.ts'

/** For about how long the event loop is held. */
const HOLD_MS = 4_000
/**
 * Below it, counting primes takes some tenth of a second: long enough to tell how fast the machine
 * is.
 */
const SAMPLE = 1_000_000
const OPS_PATHS = ['/health/live', '/health/ready', '/metrics']
/** Each in a fresh process, because the watchdog rests after a look. */
const STARTS = 5

/** What a scrape and a probe meet while the event loop is held. */
export interface HeldFigures {
  /** For how long it was held, in milliseconds: the median. */
  heldMs: number
  /** From the request that holds it until its culprit is known: the highest. */
  namedAfterMs: number
  /** How long the ops port took to answer meanwhile. */
  opsP50Ms: number
  opsMaxMs: number
  answers: number
}

/** Holds the event loop and asks the ops port on and on. */
export async function measureHeld(databaseUrl: string): Promise<HeldFigures> {
  const starts: Awaited<ReturnType<typeof holdOnce>>[] = []
  for (let start = 0; start < STARTS; start++) starts.push(await holdOnce(databaseUrl))
  const tookMs = starts.flatMap((start) => start.tookMs)
  return {
    heldMs: median(starts.map(({ heldMs }) => heldMs)),
    namedAfterMs: Math.max(...starts.map(({ namedAfterMs }) => namedAfterMs)),
    opsP50Ms: median(tookMs),
    opsMaxMs: Math.max(...tookMs),
    answers: tookMs.length,
  }
}

async function holdOnce(databaseUrl: string) {
  await using app = await startApp(databaseUrl, machine.cores)
  for (const path of OPS_PATHS) await ask(app.opsUrl + path)
  const to = await primesFor(HOLD_MS)
  let isHeld = true
  const startedAt = performance.now()
  const holding = ask(`${app.url}/v1/primes?to=${to}&mode=inline`).then(({ ms }) => {
    isHeld = false
    return ms
  })
  let namedAfterMs = Number.POSITIVE_INFINITY
  const tookMs: number[] = []
  while (isHeld)
    for (const path of OPS_PATHS) {
      const { text, ms } = await ask(app.opsUrl + path)
      tookMs.push(ms)
      if (path === '/health/live' && text.includes('"blockingFrame"'))
        namedAfterMs = Math.min(namedAfterMs, performance.now() - startedAt)
    }
  return { heldMs: await holding, namedAfterMs, tookMs }
}

/**
 * How far this machine counts primes in that time: to test n takes some √n divisions, so all below
 * n take some n^1.5.
 */
async function primesFor(ms: number): Promise<number> {
  const sampleMs = await millisecondsOf(() => countPrimesIn({ from: 0, to: SAMPLE }, UNCANCELLABLE))
  return Math.round(SAMPLE * (ms / sampleMs) ** (2 / 3))
}

async function ask(url: string) {
  const startedAt = performance.now()
  const text = await (await fetch(url)).text()
  return { text, ms: performance.now() - startedAt }
}
