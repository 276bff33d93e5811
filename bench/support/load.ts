import { setTimeout as sleep } from 'node:timers/promises'
import autocannon from 'autocannon'
import { percentile } from './statistics.ts'

/** Long enough for any load here: each is stopped by hand. */
const MAX_DURATION_S = 600
const STOP_POLL_MS = 100
/** Between two loads: connections that the last one cut off are closed and replaced. */
const PAUSE_MS = 200

/** How `drive` asks: connections are open and statements prepared before it counts. */
export const DRIVE = { leadInMs: 300, connections: 20 } as const

export interface LoadFigures {
  /**
   * From whole turns of all clients: heavy requests end together, so that by the clock, a few
   * seconds would count one more or less of each client's.
   */
  perSecond: number
  p50Ms: number
  p99Ms: number
  /** How many requests ended in an error or in any answer but a 2xx. */
  failed: number
}

/** Requests as fast as the answers come. */
export interface Load {
  /** From here on it counts. */
  begin(): void
  /** Ends the counting, then the load. */
  end(): Promise<LoadFigures>
}

/** Starts autocannon here. Its own percentiles are whole milliseconds, so not they. */
export function startLoad(options: autocannon.Options & { connections: number }): Load {
  const { promise: result, resolve, reject } = Promise.withResolvers<autocannon.Result>()
  const settings = { ...options, duration: MAX_DURATION_S, sampleInt: STOP_POLL_MS }
  const instance = autocannon(settings, (error, value) => (error ? reject(error) : resolve(value)))
  let answers: Answer[] = []
  instance.on('response', (_client, _status, _bytes, ms) =>
    answers.push({ ms, atMs: performance.now() }),
  )
  return {
    begin() {
      answers = []
    },
    async end() {
      const counted = answers.slice()
      instance.stop()
      const { non2xx, errors } = await result
      const latenciesMs = counted.map(({ ms }) => ms)
      return {
        perSecond: countPerSecond(counted, options.connections),
        p50Ms: percentile(latenciesMs, 0.5),
        p99Ms: percentile(latenciesMs, 0.99),
        failed: non2xx + errors,
      }
    },
  }
}

/** One round of load on an endpoint. @throws Error when any answer was not a 2xx. */
export async function drive(
  url: string,
  options: Omit<autocannon.Options, 'url'>,
  roundMs: number,
): Promise<LoadFigures> {
  const load = startLoad({ url, connections: DRIVE.connections, ...options })
  await sleep(DRIVE.leadInMs)
  load.begin()
  await sleep(roundMs)
  const figures = await load.end()
  await sleep(PAUSE_MS)
  if (figures.failed > 0) throw new Error(`${url}: ${figures.failed} requests failed`)
  return figures
}

interface Answer {
  /** How long it took. */
  ms: number
  atMs: number
}

/** NaN where not even one turn of all clients came to its end. */
function countPerSecond(answers: Answer[], clients: number): number {
  const whole = Math.trunc((answers.length - 1) / clients) * clients
  return (1_000 * whole) / ((answers[whole]?.atMs ?? 0) - (answers[0]?.atMs ?? 0))
}
