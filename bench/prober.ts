import { once } from 'node:events'
import { constants, setPriority } from 'node:os'
import { Worker } from 'node:worker_threads'
import { Pool } from 'undici'
import { nowMs } from './clock.ts'
import type { Beats } from './pacer.ts'

/**
 * Asks for one URL at a steady rate, as many people who know nothing of each other do, and times
 * each answer from the moment its request was due. autocannon cannot: each of its connections waits
 * for an answer before it asks again, so that a server which stops for a second delays one request
 * per connection and is spared the others; it sends each second's requests in one burst; and its
 * percentiles are whole milliseconds.
 *
 * A process of its own, so that no other load delays what it measures: `fork` it and send it a
 * ProbeOrder.
 */
export interface ProbeOrder {
  url: string
  perSecond: number
  /** Until the first request; the pacer needs some 100 ms of it to start. */
  startInMs: number
  durationMs: number
  /**
   * How many connections there may be; further behind than that, requests wait in here, and their
   * clocks run.
   */
  connections?: number
}

/** The end of one request. */
export interface Answer {
  /** 0 where there was none. */
  status: number
  /** From the moment it was due. */
  ms: number
  /** When it came, by the moment that the first request was due. */
  atMs: number
}

export interface ProbeResult {
  answers: Answer[]
  /** One for each request, whatever its end. */
  latenciesMs: number[]
  /** How many ended in anything but a 200. */
  failed: number
  /**
   * How late each request left, which is part of its latency: it shows whether the prober itself
   * lacked CPU.
   */
  lagsMs: number[]
}

const CONNECTIONS = 256
/** After the last request was sent; what is still without an answer then has failed. */
const ANSWER_TIMEOUT_MS = 30_000

favourThisProcess()
process.on('message', async (order: ProbeOrder) => process.send?.(await probe(order)))
process.on('disconnect', () => process.exit())

/**
 * In earnest the clients are on other machines and lack no CPU. Here they share the service's
 * cores, and a prober that waits for one measures itself. Only root may ask for this; `lagsMs`
 * shows how well it went.
 */
function favourThisProcess() {
  try {
    setPriority(constants.priority.PRIORITY_HIGHEST)
  } catch {
    // Not root: the figures are somewhat worse than the service is.
  }
}

async function probe({
  url,
  perSecond,
  startInMs,
  durationMs,
  connections = CONNECTIONS,
}: ProbeOrder): Promise<ProbeResult> {
  const { origin, pathname, search } = new URL(url)
  // Not node:http, which takes half as much time again for each request, of the cores that the
  // service has.
  const pool = new Pool(origin, { connections })
  const result: ProbeResult = { answers: [], latenciesMs: [], failed: 0, lagsMs: [] }
  const pending: Promise<void>[] = []

  const beats = {
    startAtMs: nowMs() + startInMs,
    intervalMs: 1_000 / perSecond,
    count: (durationMs * perSecond) / 1_000,
  }
  const send = async (dueMs: number) => {
    result.lagsMs.push(nowMs() - dueMs)
    const status = await ask(pool, pathname + search)
    const answeredMs = nowMs()
    result.answers.push({ status, ms: answeredMs - dueMs, atMs: answeredMs - beats.startAtMs })
    result.latenciesMs.push(answeredMs - dueMs)
    if (status !== 200) result.failed++
  }
  await pace(beats, (dueMs) => pending.push(send(dueMs)))
  const giveUp = setTimeout(() => pool.destroy(), ANSWER_TIMEOUT_MS)
  await Promise.all(pending)
  clearTimeout(giveUp)
  await pool.destroy()
  return result
}

/**
 * Resolves with the answer's status once all of it has arrived, or with 0 when that does not
 * happen.
 */
function ask(pool: Pool, path: string): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<number>()
  let status = 0
  pool.dispatch(
    { method: 'GET', path },
    {
      // Undici insists on the two that do nothing.
      onRequestStart() {},
      onResponseData() {},
      onResponseStart(_controller, code) {
        status = code
      },
      onResponseEnd: () => resolve(status),
      onResponseError: () => resolve(0),
    },
  )
  return promise
}

async function pace(
  { startAtMs, intervalMs, count }: Beats,
  onBeat: (dueMs: number) => void,
): Promise<void> {
  const pacer = new Worker(new URL('./pacer.ts', import.meta.url), {
    workerData: { startAtMs, intervalMs, count },
  })
  pacer.on('message', (beat: number) => onBeat(startAtMs + beat * intervalMs))
  await once(pacer, 'exit')
}
