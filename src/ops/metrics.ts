import { collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'

/** Upper bounds in seconds, from a read by key to a request's deadline. */
const BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]

/** The figures behind `GET /metrics`, in Prometheus's text format. */
export class Metrics {
  readonly #registry = new Registry()
  readonly #requests: Histogram<'method' | 'route' | 'status'>
  readonly #tasks: Histogram<'task' | 'outcome'>

  constructor() {
    const registers = [this.#registry]
    collectDefaultMetrics({ register: this.#registry })
    this.#requests = new Histogram({
      name: 'http_request_duration_seconds',
      help: 'Time from the request to its answer',
      labelNames: ['method', 'route', 'status'],
      buckets: BUCKETS,
      registers,
    })
    this.#tasks = new Histogram({
      name: 'compute_task_duration_seconds',
      help: 'Time that a task held its thread',
      labelNames: ['task', 'outcome'],
      buckets: BUCKETS,
      registers,
    })
  }

  get contentType() {
    return this.#registry.contentType
  }

  /** The page that Prometheus reads. */
  page(): Promise<string> {
    return this.#registry.metrics()
  }

  observeRequest = ({ method, route, status, ms }: { method: string; route: string; status: number; ms: number }) =>
    this.#requests.observe({ method, route, status }, ms / 1_000)

  observeTask = ({ task, outcome, runMs }: { task: string; outcome: string; runMs: number }) =>
    this.#tasks.observe({ task, outcome }, runMs / 1_000)

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

  /** The same for a figure with one label; without it where it cannot be read now, as when the database is away. */
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
