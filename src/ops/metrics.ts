import { performance } from 'node:perf_hooks'
import type { JobObserver } from '@offloop/jobs/job'
import type { Jobs } from '@offloop/jobs/jobs'
import type { Block } from '@offloop/loopwatch/blocking-frame'
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { RequestRecord } from '../http/context.ts'
import type { TaskSpan } from './live-spans.ts'

/** In seconds, from a read by key to a request's deadline. */
const BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
/** From a job that does nothing to one that takes an hour. */
const JOB_BUCKETS = [0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3_600]
/** Those that come later count as `other`. */
const MAX_JOB_KINDS = 50

interface Parts {
  database: { semaphore: { permits: number; inUse: number }; waiting: number }
  compute: { threads: number; queued: number; running: number }
  jobs: Pick<Jobs, 'running' | 'claimReadMs' | 'historyLength' | 'figures'>
  realtime: { connections: number }
  valkey: { isReady: boolean } | undefined
  remote: { running: number } | undefined
  readiness: { find(): Promise<{ ready: boolean }> }
}

/**
 * The service's metrics, by Prometheus's conventions: seconds, `_total` for counters, and labels
 * with few values (route patterns, not paths).
 */
export class Metrics {
  readonly #registry = new Registry()
  readonly #requests = this.#histogram(
    'http_request_duration_seconds',
    'Time from a request to the end of its response',
    ['method', 'route', 'status'],
  )
  readonly #tasks = this.#histogram(
    'compute_task_duration_seconds',
    'Time a task ran on its worker thread',
    ['task', 'outcome'],
  )
  readonly #queueWaits = this.#histogram(
    'compute_queue_wait_seconds',
    'Time a task waited for a worker thread',
    ['task'],
  )
  readonly #connectionWaits = this.#histogram(
    'database_pool_wait_seconds',
    'Time spent waiting for a pooled connection',
  )
  readonly #statements = this.#histogram(
    'sql_statement_seconds',
    'Time of SQL statements by the name of the query, or by verb and table',
    ['name'],
  )
  readonly #slowStatements = this.#counter(
    'sql_slow_statements_total',
    'SQL statements that took SLOW_QUERY_MS or longer',
  )
  readonly #droppedSpans = this.#counter(
    'trace_spans_dropped_total',
    'Spans that the OpenTelemetry collector did not take',
  )
  readonly #blocks = this.#counter(
    'nodejs_eventloop_blocks_total',
    'Times the event loop was blocked for longer than WATCHDOG_MS',
  )
  readonly #blockedSeconds = this.#counter(
    'nodejs_eventloop_blocked_seconds_total',
    'Total time the event loop was blocked, in blocks longer than WATCHDOG_MS',
  )
  readonly #remoteChunks = this.#counter(
    'remote_chunks_total',
    'Parts of distributed calls that were sent to other processes, by what became of them',
    ['outcome'],
  )
  readonly #jobWaits = this.#histogram(
    'jobs_wait_seconds',
    'Time from a job being queued, or due, to the start of an attempt in this process',
    ['kind'],
    JOB_BUCKETS,
  )
  readonly #jobRuns = this.#histogram(
    'jobs_run_seconds',
    'Time an attempt of a job ran in this process',
    ['kind'],
    JOB_BUCKETS,
  )
  readonly #jobFailures = this.#counter(
    'jobs_failed_total',
    'Jobs that this process found to have failed for good',
    ['kind'],
  )
  readonly #jobKinds = new Set<string>()
  readonly contentType = this.#registry.contentType
  /** Finished requests since the start. */
  requestCount = 0

  constructor() {
    collectDefaultMetrics({ register: this.#registry })
    this.#gauge(
      'nodejs_eventloop_utilization_ratio',
      'Share of the time since the last scrape in which the event loop was not idle',
      trackUtilization(),
    )
  }

  scrape = (): Promise<string> => this.#registry.metrics()

  observeRequest({ method, route, status, ms }: RequestRecord): void {
    this.requestCount++
    this.#requests.observe({ method, route, status }, ms / 1_000)
  }

  observeTask({ task, outcome, queuedMs, runMs }: Omit<TaskSpan, 'count'>): void {
    this.#tasks.observe({ task, outcome }, runMs / 1_000)
    this.#queueWaits.observe({ task }, Math.max(0, queuedMs) / 1_000)
  }

  observeConnectionWait = (ms: number) => this.#connectionWaits.observe(ms / 1_000)

  observeRemoteChunk = (outcome: string) => this.#remoteChunks.inc({ outcome })

  /** Returns what observes each statement of this name. */
  timeStatements(name: string): (seconds: number) => void {
    return this.#statements.labels({ name }).observe
  }

  countSlowStatement(): void {
    this.#slowStatements.inc()
  }

  countDroppedSpans = (spans: number) => this.#droppedSpans.inc(spans)

  observeBlock({ blockedMs }: Block): void {
    this.#blocks.inc()
    this.#blockedSeconds.inc(blockedMs / 1_000)
  }

  readonly jobObserver: JobObserver = {
    started: (kind, waitMs) =>
      this.#jobWaits.observe({ kind: this.#toKindLabel(kind) }, waitMs / 1_000),
    ended: (kind, runMs) => this.#jobRuns.observe({ kind: this.#toKindLabel(kind) }, runMs / 1_000),
    failed: (kind) => this.#jobFailures.inc({ kind: this.#toKindLabel(kind) }),
  }

  /** Adds what is read at each scrape. */
  addGauges({ database, compute, jobs, realtime, valkey, remote, readiness }: Parts): void {
    const { semaphore } = database
    this.#gauge('database_pool_size', 'Maximum pool size', () => semaphore.permits)
    this.#gauge('database_pool_in_use', 'Connections in use', () => semaphore.inUse)
    this.#gauge('database_pool_waiting', 'Waits for a connection', () => database.waiting)
    this.#gauge('compute_threads', 'Maximum number of worker threads', () => compute.threads)
    this.#gauge('compute_threads_busy', 'Threads and processes in use', () => compute.running)
    this.#gauge('compute_queued', 'Tasks waiting for a worker thread', () => compute.queued)
    this.#gauge('jobs_running', 'Jobs running in this process', () => jobs.running)
    this.#gauge('realtime_connections', 'Socket.IO clients', () => realtime.connections)
    if (valkey)
      this.#gauge('valkey_up', 'Whether Valkey answers, 1 or 0', () => Number(valkey.isReady))
    if (remote)
      this.#gauge(
        'remote_chunks_running',
        'Parts of distributed calls that other processes run or will run for this one',
        () => remote.running,
      )
    new Gauge({
      name: 'service_ready',
      help: 'Whether the readiness probe answers 200: 1 or 0',
      registers: [this.#registry],
      async collect() {
        this.set((await readiness.find()).ready ? 1 : 0)
      },
    })
    const claimRead = 'Time to find the first queued job, which old row versions make long'
    this.#gauge('jobs_claim_read_seconds', claimRead, () => toSeconds(jobs.claimReadMs))
    const history = "InnoDB's history list length, where the database's user may read it"
    this.#gauge('innodb_history_length', history, () => jobs.historyLength)
    this.#addJobCounts(jobs)
  }

  /** Of all processes. Without the database, a scrape lacks them. */
  #addJobCounts(jobs: Parts['jobs']): void {
    this.#gauges('jobs', 'Jobs by state, of all processes', 'state', async () =>
      Object.entries((await jobs.figures())?.states ?? {}),
    )
    this.#gauges('jobs_queued', 'Queued jobs, of all processes', 'queue', async () =>
      ((await jobs.figures())?.queues ?? []).map(({ queue, queued }) => [queue, queued]),
    )
    const age = 'Time that the oldest queued job has waited'
    this.#gauges('jobs_oldest_queued_seconds', age, 'queue', async () =>
      ((await jobs.figures())?.queues ?? []).map(({ queue, oldestMs }) => [
        queue,
        oldestMs / 1_000,
      ]),
    )
    const orphans = 'Jobs of kinds that no process has handled for a day'
    this.#gauges('jobs_parked', orphans, 'kind', async () =>
      ((await jobs.figures())?.parked ?? []).map(({ kind, count }) => [
        this.#toKindLabel(kind),
        count,
      ]),
    )
  }

  #toKindLabel(kind: string): string {
    if (this.#jobKinds.size < MAX_JOB_KINDS) this.#jobKinds.add(kind)
    return this.#jobKinds.has(kind) ? kind : 'other'
  }

  #histogram<Label extends string>(
    name: string,
    help: string,
    labelNames: Label[] = [],
    buckets = BUCKETS,
  ) {
    return new Histogram({ name, help, labelNames, buckets, registers: [this.#registry] })
  }

  #counter<Label extends string>(name: string, help: string, labelNames: Label[] = []) {
    return new Counter({ name, help, labelNames, registers: [this.#registry] })
  }

  /** A scrape lacks it while `read` returns nothing. */
  #gauge(name: string, help: string, read: () => number | undefined) {
    new Gauge({
      name,
      help,
      registers: [this.#registry],
      collect() {
        const value = read()
        if (value === undefined) this.remove()
        else this.set(value)
      },
    })
  }

  #gauges(name: string, help: string, label: string, read: () => Promise<[string, number][]>) {
    new Gauge({
      name,
      help,
      labelNames: [label],
      registers: [this.#registry],
      async collect() {
        const values = await read()
        this.reset()
        for (const [of, value] of values) this.inc({ [label]: of }, value)
      },
    })
  }
}

const toSeconds = (ms: number | undefined) => ms && ms / 1_000

/** Returns a function that reads the event loop's utilization since its last call, 0 to 1. */
export function trackUtilization(): () => number {
  let last = performance.eventLoopUtilization()
  return () => {
    const { utilization } = performance.eventLoopUtilization(last)
    last = performance.eventLoopUtilization()
    return utilization
  }
}
