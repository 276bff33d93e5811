import { setFlagsFromString } from 'node:v8'
import { createApp } from './app.ts'
import { Compute } from './compute/compute.ts'
import { loadConfig } from './config.ts'
import { Database } from './db/database.ts'
import { assertMigrated } from './db/migrate.ts'
import { type Deps, featureJobs, topics } from './features/index.ts'
import { HttpServer } from './http/server.ts'
import { Jobs } from './jobs/jobs.ts'
import { openLog } from './log.ts'
import { Metrics } from './ops/metrics.ts'
import { Sampler } from './ops/sampler.ts'
import { Spans } from './ops/spans.ts'
import { Realtime } from './realtime/realtime.ts'
import { runService, type Service } from './service.ts'

/** Opens everything in order; what is open already is closed again when a later step fails. */
export async function openService(env: NodeJS.ProcessEnv): Promise<Service> {
  // Or else V8 may come to keep what requests leave behind: docs/decisions/008-no-pretenuring.md
  setFlagsFromString('--no-allocation-site-pretenuring')
  const config = loadConfig(env)
  const log = openLog(config.log)
  const metrics = new Metrics()
  const spans = new Spans()
  const stopping = new AbortController()

  await using opening = new AsyncDisposableStack()
  const database = opening.use(await Database.open(config.database))
  await assertMigrated(database.withSignal())
  const compute = opening.use(
    await Compute.open({
      ...config.compute,
      entry: new URL('./thread.ts', import.meta.url),
      stopping: stopping.signal,
      onTiming(timing) {
        metrics.observeTask(timing)
        spans.observe(timing)
      },
      onCrash: (error, thread) => log.error({ err: error, thread }, 'A worker thread ended'),
    }),
  )
  const jobs = opening.use(new Jobs({ database, log, ...config.jobs }))
  const server = opening.use(new HttpServer(stopping.signal))
  const realtime = opening.use(new Realtime(server.node, { topics, corsOrigins: config.http.corsOrigins }))
  const { poolSize } = config.database
  const sampler = opening.use(new Sampler({ compute, database, realtime, spans, poolSize }))
  metrics.gauge('database_connections_busy', 'Connections that run something', () => database.gate.inside)
  metrics.gauge('database_waiters', 'Requests that wait for a connection', () => database.gate.waiting)
  metrics.gauge('compute_queued', 'Tasks that wait for a thread', () => compute.queued)
  metrics.gauge('compute_running', 'Tasks on a thread', () => compute.running)
  metrics.gauge('jobs_running', 'Jobs that run in this process', () => jobs.running)
  metrics.gauges('jobs', 'Jobs by state, in all processes together', 'state', () => jobs.counts())
  metrics.gauge('realtime_connections', 'Connected Socket.IO clients', () => realtime.connections)

  const { demoInline, reports } = config
  const deps: Deps = { database, compute, jobs, realtime, log, stopping: stopping.signal, demoInline, reports }
  const app = createApp({ config: config.http, metrics, sampler, ...deps })
  jobs.start(featureJobs(deps))
  const url = await server.listen(app, config.http.host, config.http.port)
  log.info({ url, threads: config.compute.threads, node: process.version }, 'listening')

  const resources = opening.move()
  return {
    url,
    log,
    async stop(crashed = false) {
      stopping.abort()
      await Promise.all([server.drain(config.http.drainTimeoutMs), realtime[Symbol.asyncDispose](), jobs.stop(crashed)])
      await resources.disposeAsync()
    },
  }
}

if (import.meta.main) process.exit(await runService(() => openService(process.env)))
