import autocannon from 'autocannon'
import { percentile } from './statistics.ts'

/** Long enough for any load here: each is stopped by hand. */
const MAX_DURATION_S = 600
const STOP_POLL_MS = 100

export interface LoadFigures {
  perSecond: number
  p50Ms: number
  p99Ms: number
}

/** Requests as fast as the answers come. */
export interface Load {
  /** From here on it counts: connections are open, statements prepared. */
  begin(): void
  /** Ends the counting, then the load. @throws Error when there was any error or any answer but a 2xx. */
  end(): Promise<LoadFigures>
}

/** Starts autocannon in this process, which has nothing else to do. Its own percentiles are whole milliseconds, so not they. */
export function startLoad(options: autocannon.Options): Load {
  const { promise: result, resolve, reject } = Promise.withResolvers<autocannon.Result>()
  const settings = { ...options, duration: MAX_DURATION_S, sampleInt: STOP_POLL_MS }
  const instance = autocannon(settings, (error, value) => (error ? reject(error) : resolve(value)))
  let latenciesMs: number[] = []
  let startedAt = 0
  instance.on('response', (_client, _status, _bytes, ms) => latenciesMs.push(ms))

  return {
    begin() {
      latenciesMs = []
      startedAt = performance.now()
    },
    async end() {
      const seconds = (performance.now() - startedAt) / 1_000
      const counted = latenciesMs.slice()
      instance.stop()
      assertNoFailures(await result)
      return { perSecond: counted.length / seconds, p50Ms: percentile(counted, 0.5), p99Ms: percentile(counted, 0.99) }
    },
  }
}

function assertNoFailures({ url, non2xx, errors, statusCodeStats }: autocannon.Result) {
  if (non2xx + errors > 0) throw new Error(`${url}: ${errors} errors, answers by status ${JSON.stringify(statusCodeStats)}`)
}
