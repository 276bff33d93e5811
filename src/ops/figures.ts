import type { Metrics } from './metrics.ts'

/** What `main.ts` opens, as far as it can be counted. */
interface Counted {
  database: { semaphore: { permits: number; inUse: number }; waiting: number }
  compute: { threads: number; queued: number; running: number }
  jobs: { running: number; counts(): Promise<Record<string, number>> }
  realtime: { connections: number }
}

/** Adds the figures that are read from the opened parts when somebody looks. */
export function addFigures(metrics: Metrics, { database, compute, jobs, realtime }: Counted): void {
  metrics.gauge(
    'database_pool_size',
    'Connections that there may be',
    () => database.semaphore.permits,
  )
  metrics.gauge(
    'database_pool_in_use',
    'Connections that run something',
    () => database.semaphore.inUse,
  )
  metrics.gauge(
    'database_pool_waiting',
    'Requests that wait for a connection',
    () => database.waiting,
  )
  metrics.gauge('compute_threads', 'Threads that there may be', () => compute.threads)
  metrics.gauge(
    'compute_threads_busy',
    'Threads that run a task, and child processes that do',
    () => compute.running,
  )
  metrics.gauge('compute_queued', 'Tasks that wait for a thread', () => compute.queued)
  metrics.gauge('jobs_running', 'Jobs that run in this process', () => jobs.running)
  metrics.gauges('jobs', 'Jobs by state, in all processes together', 'state', () => jobs.counts())
  metrics.gauge('realtime_connections', 'Connected Socket.IO clients', () => realtime.connections)
}
