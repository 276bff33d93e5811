import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import { utilization } from './utilization.ts'

/** Upper bounds in seconds, from a read by key to a request's deadline. */
const BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]

/**
 * The figures behind `GET /metrics`, in Prometheus's text format. Prometheus's conventions hold:
 * seconds and bytes, `_total` for what only grows, and labels with few values: patterns, not paths.
 */
export class Metrics {
  readonly #registry = new Registry()
  readonly #requests: Histogram<'method' | 'route' | 'status'>
  readonly #tasks: Histogram<'task' | 'outcome'>
  readonly #queueWaits: Histogram<'task'>
  readonly #connectionWaits: Histogram
  readonly #incidents: Counter
  readonly #heldSeconds: Counter

  constructor() {
    const registers = [this.#registry]
    const buckets = BUCKETS
    collectDefaultMetrics({ register: this.#registry })
    this.#requests = new Histogram({
      name: 'http_request_duration_seconds',
      help: 'Time from the request to its answer',
      labelNames: ['method', 'route', 'status'],
      buckets,
      registers,
    })
    this.#tasks = new Histogram({
      name: 'compute_task_duration_seconds',
      help: 'Time that a task held its thread',
      labelNames: ['task', 'outcome'],
      buckets,
      registers,
    })
    this.#queueWaits = new Histogram({
      name: 'compute_queue_wait_seconds',
      help: 'Time between a call and the start of its task',
      labelNames: ['task'],
      buckets,
      registers,
    })
    this.#connectionWaits = new Histogram({
      name: 'database_pool_wait_seconds',
      help: 'Time that those waited who found no free connection',
      buckets,
      registers,
    })
    this.#incidents = new Counter({
      name: 'event_loop_incidents_total',
      help: 'How often the event loop was held for longer than the threshold of the watchdog',
      registers,
    })
    this.#heldSeconds = new Counter({
      name: 'event_loop_incident_seconds_total',
      help: 'For how long it was, all in all',
      registers,
    })
    this.gauge(
      'nodejs_eventloop_utilization_ratio',
      'Share of the time since the last scrape in which it was not idle',
      utilization(),
    )
  }

  get contentType() {
    return this.#registry.contentType
  }

  /** The page that Prometheus reads. */
  page = (): Promise<string> => this.#registry.metrics()

  observeRequest = ({
    method,
    route,
    status,
    ms,
  }: {
    method: string
    route: string
    status: number
    ms: number
  }) => this.#requests.observe({ method, route, status }, ms / 1_000)

  observeTask = ({
    task,
    outcome,
    queuedMs,
    runMs,
  }: {
    task: string
    outcome: string
    queuedMs: number
    runMs: number
  }) => {
    this.#tasks.observe({ task, outcome }, runMs / 1_000)
    this.#queueWaits.observe({ task }, Math.max(0, queuedMs) / 1_000)
  }

  observeConnectionWait = (ms: number) => this.#connectionWaits.observe(ms / 1_000)

  observeIncident = ({ heldMs }: { heldMs: number }) => {
    this.#incidents.inc()
    this.#heldSeconds.inc(heldMs / 1_000)
  }

  /** Adds a figure that is read whenever the page is. */
  gauge(name: string, help: string, read: () => number) {
    new Gauge({
      name,
      help,
      registers: [this.#registry],
      collect() {
        this.set(read())
      },
    })
  }

  /**
   * The same for a figure with one label; without it where it cannot be read now, as when the
   * database is away.
   */
  gauges(name: string, help: string, label: string, read: () => Promise<Record<string, number>>) {
    new Gauge({
      name,
      help,
      labelNames: [label],
      registers: [this.#registry],
      async collect() {
        const figures = await read().catch(() => ({}))
        this.reset()
        for (const [value, figure] of Object.entries(figures)) this.set({ [label]: value }, figure)
      },
    })
  }
}
