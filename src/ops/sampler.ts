import { performance } from 'node:perf_hooks'
import type { Incident } from '@offloop/loopwatch/incident'
import type { Compute } from '@offloop/workpool/compute'
import type { Database } from '../db/database.ts'
import type { Log } from '../log.ts'
import type { Realtime } from '../realtime/realtime.ts'
import { every } from '../timers.ts'
import { OPS, type OpsSample, opsSample, opsSpans } from './contract.ts'
import { LoopDelay } from './loop-delay.ts'
import type { Spans } from './spans.ts'
import { utilization } from './utilization.ts'

const SAMPLE_EVERY_MS = 1_000
const SPANS_EVERY_MS = 250
/** Two minutes of samples, for a page that has just been opened. */
const MAX_SAMPLES = 120
const MAX_THREADS = 64
const MAX_INCIDENTS = 5
/** A sample must stay small, whatever names and paths there are in it. */
const MAX_TEXT = 200

export interface SamplerOptions {
  compute: Compute
  database: Database
  realtime: Realtime
  spans: Spans
  log: Log
}

/**
 * Feeds the live page: once a second a sample of how the process does, four times a second the
 * tasks that have ended. The last two minutes of samples are kept; nothing is sent, and no task
 * looked at, while nobody listens.
 */
export class Sampler implements Disposable {
  readonly #options: SamplerOptions
  readonly #delay = new LoopDelay()
  readonly #timers: NodeJS.Timeout[]
  readonly #samples: OpsSample[] = []
  #incidents: Incident[] = []
  #requests = 0
  #sampledAt = performance.now()
  readonly #utilization = utilization()
  #cpu = process.cpuUsage()

  constructor(options: SamplerOptions) {
    this.#options = options
    this.#timers = [
      every(SAMPLE_EVERY_MS, () => this.#tellSample(), this.#onError),
      every(SPANS_EVERY_MS, () => this.#tellSpans(), this.#onError),
    ]
  }

  /** The last two minutes, oldest first. */
  get samples(): readonly OpsSample[] {
    return this.#samples
  }

  /** Requests have been answered. */
  countRequests(count: number): void {
    this.#requests += count
  }

  /** The event loop was held; the next sample tells it. */
  observeIncident(incident: Incident): void {
    this.#incidents.push(incident)
    this.#incidents = longest(this.#incidents)
  }

  [Symbol.dispose]() {
    for (const timer of this.#timers) clearInterval(timer)
    this.#delay[Symbol.dispose]()
  }

  /** As when the process is out of file descriptors: what reads its memory needs one. */
  #onError = (error: unknown) =>
    this.#options.log.warn({ err: error }, 'Left out a sample of the live page')

  #tellSample() {
    const sample = this.#sample()
    this.#samples.push(sample)
    if (this.#samples.length > MAX_SAMPLES) this.#samples.shift()
    if (this.#options.realtime.hasSubscribers(OPS))
      this.#options.realtime.emitLatest(OPS, opsSample, sample)
  }

  #tellSpans() {
    const { realtime, spans } = this.#options
    spans.listening = realtime.hasSubscribers(OPS)
    const batch = spans.take()
    if (batch) realtime.emitLatest(OPS, opsSpans, batch)
  }

  #sample(): OpsSample {
    const { compute, database, realtime } = this.#options
    const now = performance.now()
    const elapsedMs = now - this.#sampledAt
    const { rss, heapUsed, heapTotal, external } = process.memoryUsage()
    const sample: OpsSample = {
      at: Math.round(performance.timeOrigin + now),
      loop: this.#readLoop(),
      incidents: this.#incidents.map(shortened),
      http: { requestsPerSecond: round((this.#requests * 1_000) / elapsedMs) },
      compute: {
        queued: compute.queued,
        running: compute.running,
        threads: compute.threadStates().slice(0, MAX_THREADS),
      },
      database: {
        size: database.semaphore.permits,
        inUse: database.semaphore.inUse,
        waiting: database.waiting,
      },
      memory: { rss, heapUsed, heapTotal, external },
      cpu: this.#readCpu(elapsedMs),
      uptime: Math.round(now),
      sockets: realtime.connections,
    }
    this.#sampledAt = now
    this.#requests = 0
    this.#incidents = []
    return sample
  }

  #readLoop(): OpsSample['loop'] {
    const { p50, p99, max } = this.#delay.read()
    return {
      p50: round(p50),
      p99: round(p99),
      max: round(max),
      utilization: round(this.#utilization()),
    }
  }

  #readCpu(elapsedMs: number): number {
    const { user, system } = process.cpuUsage(this.#cpu)
    this.#cpu = process.cpuUsage()
    return round((user + system) / 1_000 / elapsedMs)
  }
}

const longest = (incidents: Incident[]) =>
  incidents.length <= MAX_INCIDENTS
    ? incidents
    : incidents.toSorted((one, other) => other.heldMs - one.heldMs).slice(0, MAX_INCIDENTS)

/** The end of a path says more than its beginning. */
const shortened = (incident: Incident): Incident => ({
  ...incident,
  function: incident.function.slice(0, MAX_TEXT),
  file: incident.file.slice(-MAX_TEXT),
  ...(incident.route !== undefined && { route: incident.route.slice(0, MAX_TEXT) }),
})

const round = (value: number) => Math.round(value * 1_000) / 1_000
