import { setTimeout as sleep } from 'node:timers/promises'
import { type JobSignal, Jobs } from '@offloop/jobs/jobs'
import { Pool } from '@offloop/workpool/pool'
import { type Config, loadConfig, missingV8Flags } from './config.ts'
import { Database } from './db/database.ts'
import { assertMigrated } from './db/migrate.ts'
import { afterCommit, transaction } from './db/transaction.ts'
import { AppError } from './errors.ts'
import type { Deps, Feature } from './feature.ts'
import { features } from './features/index.ts'
import { currentTrace, runJob } from './http/context.ts'
import { toAppError } from './http/errors.ts'
import { type Log, openLog } from './log.ts'
import { Live } from './ops/live.ts'
import { OPS } from './ops/live-samples.ts'
import { Metrics } from './ops/metrics.ts'
import { Processes, uniqueProcessId } from './ops/processes.ts'
import { Statements } from './ops/statements.ts'
import { openWatchdog, Readiness } from './ops/watchdog.ts'
import { Realtime } from './realtime/realtime.ts'
import type { Subject } from './roles.ts'
import { runService, type Service } from './shutdown.ts'
import { readProcesses, reportListening, supervise } from './supervisor.ts'
import type { Valkey } from './valkey.ts'
import { openWeb } from './web.ts'

/** Opens everything in order, and closes it again if a step fails. */
export async function openService(
  env: NodeJS.ProcessEnv,
  features: readonly Feature[],
  threadEntry = new URL('./thread.ts', import.meta.url),
): Promise<Service> {
  const config = loadConfig(env)
  const log = openLog(config.log, config.tracing && traceFields)
  const missing = missingV8Flags()
  if (missing.length > 0)
    log.warn({ missing }, 'V8 flags are missing: start with `bin/node src/main.ts`')
  const metrics = new Metrics()
  const processId = uniqueProcessId()
  const live = new Live(processId)
  // `leaving` asks for no more traffic, `stopping` accepts no more.
  const leaving = new AbortController()
  const stopping = new AbortController()

  await using opening = new AsyncDisposableStack()
  const readiness = new Readiness(leaving.signal)
  // Opened first and closed last, so that probes are always answered.
  const watchdog = opening.use(
    await openWatchdog(config.watchdog, { readiness, metrics, samples: live.samples, log }),
  )
  const tracing = config.tracing && opening.use(await openTracing(config.tracing, log, metrics))
  const { slowQueryMs: slowMs } = config
  const statements = new Statements({ metrics, requests: live.requests, log, slowMs, tracing })
  const database = opening.use(
    await Database.open({
      ...config.database,
      onWait: metrics.observeConnectionWait,
      onStatement: statements.observe,
    }),
  )
  await assertMigrated(database.withSignal())
  const { valkeyUrl } = config
  const valkey = valkeyUrl ? opening.use(await openValkey(valkeyUrl, log)) : undefined
  const remote = valkey && opening.use(await openRemote(valkey, metrics))
  const compute = opening.use(
    await Pool.open({
      ...config.compute,
      remote: remote?.client,
      entry: threadEntry,
      stopping: stopping.signal,
      drainMs: config.http.drainTimeoutMs,
      onTiming(timing) {
        metrics.observeTask(timing)
        live.observeTask(timing)
        tracing?.observeTask(timing)
      },
      onCrash: (error, thread, task) =>
        log.error({ err: error, thread, task }, 'A worker thread ended'),
    }),
  )
  const jobs = opening.use(
    new Jobs({
      worker: processId,
      open: (signal, options) => database.withSignal(signal, options),
      transaction,
      afterCommit,
      publicMessage: (error) => toAppError(error).message,
      currentTrace: () => currentTrace()?.traceparent,
      around: tracing?.runJob ?? ((attempt, run) => runJob(attempt, undefined, run)),
      observer: metrics.jobObserver,
      log,
      signals: valkey && {
        publish: (signal) => valkey.publish('jobs', signal),
        subscribe: (listener) =>
          valkey.subscribe('jobs', (signal) => listener(signal as JobSignal)),
      },
      ...config.jobs,
    }),
  )
  const parts = { config, database, compute, features, valkey, leaving: leaving.signal }
  const web = config.role === 'worker' ? undefined : await openWeb(parts)
  if (web) opening.use(web.server)
  const relay = valkey && opening.use(await openRelay(valkey))
  const realtime = opening.use(
    new Realtime({
      relay,
      topics: [
        ...features
          .flatMap(({ topics = [] }) => topics)
          .map(({ allows, ...topic }) => ({
            ...topic,
            allows: allows && ((subject: Subject, name: string) => allows(deps, subject, name)),
          })),
        { name: OPS, access: 'operate' },
      ],
      corsOrigins: config.http.corsOrigins,
      onPublish: tracing?.observePublish,
      ...web?.sockets,
    }),
  )
  if (web) opening.defer(web.watchCredentials(realtime))
  const gauged = { database, compute, jobs, realtime, valkey, readiness }
  metrics.addGauges({ ...gauged, remote: remote?.client })

  const opened = { config, database, compute, jobs, realtime, log, metrics }
  const deps: Deps = { ...opened, stopping: stopping.signal }
  for (const { start } of features) if (start) opening.defer(await start(deps))
  jobs.start({
    handlers: features.flatMap((feature) => feature.jobs?.(deps) ?? []),
    schedules: features.flatMap(({ schedules = [] }) => schedules),
  })
  const { role } = config
  if (remote && role !== 'web') opening.use(await remote.serve(compute, stopping.signal))
  const processes = opening.use(
    new Processes({ ...opened, id: processId, role, samples: live.samples }),
  )
  const url = await web?.listen(deps, { live, processes, watchdog, tracing })
  processes.start(url ?? watchdog.url)
  readiness.begin((signal) => database.ping(signal), valkey)
  watchdog.start()
  opening.defer(live.start({ metrics, watchdog, compute, database, realtime, log }))
  const { threads } = config.compute
  log.info({ role, url, ops: watchdog.url, threads, node: process.version }, 'listening')

  const resources = opening.move()
  return {
    url,
    opsUrl: watchdog.url,
    signInUrl: url && web?.link && url + web.link,
    log,
    pending: () => ({
      requests: web?.server.inFlight ?? 0,
      tasks: compute.running + compute.queued,
      jobs: jobs.running,
      sockets: realtime.connections,
    }),
    async stop(crashed = false) {
      leaving.abort()
      jobs.stopClaiming()
      if (web && !crashed) await sleep(config.http.drainDelayMs)
      stopping.abort()
      await Promise.all([
        web?.server.drain(config.http.drainTimeoutMs),
        realtime[Symbol.asyncDispose](),
        jobs.stop(crashed),
      ])
      const requests = web?.server.inFlight ?? 0
      if (requests > 0) log.warn({ requests }, 'Unanswered after DRAIN_TIMEOUT_MS')
      await processes.stop(crashed)
      await resources.disposeAsync()
    },
  }
}

/** Loaded only where it is used. */
async function openValkey(url: string, log: Log) {
  const { Valkey } = await import('./valkey.ts')
  return new Valkey(url, log)
}

async function openRelay(valkey: Valkey) {
  const { Relay } = await import('./realtime/relay.ts')
  return new Relay(valkey)
}

async function openRemote(valkey: Valkey, metrics: Metrics) {
  const { RemoteCompute } = await import('./remote.ts')
  return new RemoteCompute(valkey, metrics.observeRemoteChunk)
}

/** Loaded only where there is a collector. */
async function openTracing(tracing: NonNullable<Config['tracing']>, log: Log, metrics: Metrics) {
  const { Tracing } = await import('./ops/tracing.ts')
  return new Tracing(tracing, log, metrics.countDroppedSpans)
}

function traceFields() {
  const trace = currentTrace()
  return trace ? { traceId: trace.traceId } : {}
}

function announce({ signInUrl, log }: Service) {
  reportListening(log)
  if (signInUrl) log.info({ signInUrl }, 'Signs an operator in, once and within 10 minutes')
}

/** `npm run serve`, or each process of `npm run serve -- --processes N`. */
async function serve(): Promise<number> {
  try {
    const processes = readProcesses(process.argv.slice(2))
    if (processes > 1) return await supervise(processes, process.env)
  } catch (error) {
    console.error(error instanceof AppError ? error.message : error)
    return 1
  }
  return runService(() => openService(process.env, features), announce)
}

if (import.meta.main) process.exit(await serve())
