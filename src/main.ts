import { setTimeout as sleep } from 'node:timers/promises'
import { Jobs } from '@offloop/jobs/jobs'
import { Pool } from '@offloop/workpool/pool'
import { Authenticator } from './access/authenticator.ts'
import { clientFinder } from './access/client.ts'
import { identifyBy, identifyCachedBy, identifySocketBy } from './access/identify.ts'
import { Connections, RateLimits } from './access/limits.ts'
import { Passwords } from './access/password.ts'
import { SignInLink } from './access/sign-in-link.ts'
import { createApp } from './app.ts'
import { loadConfig, missingV8Flags } from './config.ts'
import { Database } from './db/database.ts'
import { assertMigrated } from './db/migrate.ts'
import { afterCommit, transaction } from './db/transaction.ts'
import type { Deps, Feature } from './feature.ts'
import { features } from './features/index.ts'
import { toAppError } from './http/errors.ts'
import { connectionLimit, HttpServer } from './http/server.ts'
import { type Log, openLog } from './log.ts'
import { Live } from './ops/live.ts'
import { OPS } from './ops/live-samples.ts'
import { Metrics } from './ops/metrics.ts'
import { openWatchdog, Readiness } from './ops/watchdog.ts'
import { isRealtimeUpgrade, Realtime } from './realtime/realtime.ts'
import type { Subject } from './roles.ts'
import { runService, type Service } from './shutdown.ts'

/** Opens everything in order, and closes it again if a step fails. */
export async function openService(
  env: NodeJS.ProcessEnv,
  features: readonly Feature[],
  threadEntry = new URL('./thread.ts', import.meta.url),
): Promise<Service> {
  const config = loadConfig(env)
  const log = openLog(config.log)
  const missing = missingV8Flags()
  if (missing.length > 0)
    log.warn({ missing }, 'V8 flags are missing: start with `bin/node src/main.ts`')
  const metrics = new Metrics()
  const live = new Live()
  // `leaving` asks for no more traffic, `stopping` accepts no more.
  const leaving = new AbortController()
  const stopping = new AbortController()

  await using opening = new AsyncDisposableStack()
  const readiness = new Readiness(leaving.signal)
  // Opened first and closed last, so that probes are always answered.
  const watchdog = opening.use(
    await openWatchdog(config.watchdog, { readiness, metrics, samples: live.samples, log }),
  )
  const database = opening.use(
    await Database.open({
      ...config.database,
      onWait: metrics.observeConnectionWait,
      onStatement: live.requests.observeStatement,
    }),
  )
  await assertMigrated(database.withSignal())
  const compute = opening.use(
    await Pool.open({
      ...config.compute,
      entry: threadEntry,
      stopping: stopping.signal,
      drainMs: config.http.drainTimeoutMs,
      onTiming(timing) {
        metrics.observeTask(timing)
        live.observeTask(timing)
      },
      onCrash: (error, thread, task) =>
        log.error({ err: error, thread, task }, 'A worker thread ended'),
    }),
  )
  const jobs = opening.use(
    new Jobs({
      open: (signal, options) => database.withSignal(signal, options),
      transaction,
      afterCommit,
      publicMessage: (error) => toAppError(error).message,
      log,
      ...config.jobs,
    }),
  )
  const { signUp, behindTls, signInLink } = config.access
  const link = signInLink ? new SignInLink() : undefined
  const { unlimited, maxConnections, valkeyUrl } = config.limits
  const findClient = clientFinder(config.proxy)
  const shared = valkeyUrl && opening.use(await openShared(valkeyUrl, log))
  const limits = new RateLimits({ unlimited, ...(shared && { shared }) })
  const clients = new Connections(limits, maxConnections, config.proxy.proxies !== 0)
  const authenticator = new Authenticator(database.withSignal(), limits)
  const identifyCached = identifyCachedBy(authenticator, behindTls)
  const identify = identifyBy(authenticator, behindTls)
  const access = {
    database,
    passwords: new Passwords(compute),
    authenticator,
    limits,
    signUp,
    behindTls,
    link,
  }
  const server = opening.use(
    new HttpServer({
      leaving: leaving.signal,
      shouldUpgrade: isRealtimeUpgrade,
      maxConnections: connectionLimit(config.database.poolSize),
      backlog: database.backlog,
      backlogPaths: features.filter(({ usesDatabase }) => usesDatabase).map(({ path }) => path),
      behindTls,
      findClient,
      clients,
      findRefusal: (outgoing) => limits.findRefusal(outgoing, identifyCached(outgoing.req)),
    }),
  )
  const realtime = opening.use(
    new Realtime(server.node, {
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
      identify: identifySocketBy(authenticator, behindTls, findClient),
      admit: (request) => clients.admitUpgrade(findClient(request), request.socket),
    }),
  )
  opening.defer(authenticator.onRevoke((credentialId) => realtime.disconnect(credentialId)))
  opening.defer(authenticator.watch(() => realtime.subjects))
  metrics.addGauges({ database, compute, jobs, realtime })

  const opened = { config, database, compute, jobs, realtime, log, metrics }
  const deps: Deps = { ...opened, stopping: stopping.signal }
  const app = createApp({ ...deps, access, identify, live, watchdog }, features)
  for (const { start } of features) if (start) opening.defer(start(deps))
  jobs.start({
    handlers: features.flatMap((feature) => feature.jobs?.(deps) ?? []),
    schedules: features.flatMap(({ schedules = [] }) => schedules),
  })
  const url = await server.listen(app, config.http.host, config.http.port)
  readiness.begin((signal) => database.ping(signal))
  watchdog.start()
  opening.defer(live.start({ metrics, watchdog, compute, database, realtime, log }))
  const { threads } = config.compute
  log.info({ url, ops: watchdog.url, threads, node: process.version }, 'listening')

  const resources = opening.move()
  return {
    url,
    opsUrl: watchdog.url,
    signInUrl: link?.toUrl(url),
    log,
    pending: () => ({
      requests: server.inFlight,
      tasks: compute.running + compute.queued,
      jobs: jobs.running,
      sockets: realtime.connections,
    }),
    async stop(crashed = false) {
      leaving.abort()
      jobs.stopClaiming()
      if (!crashed) await sleep(config.http.drainDelayMs)
      stopping.abort()
      await Promise.all([
        server.drain(config.http.drainTimeoutMs),
        realtime[Symbol.asyncDispose](),
        jobs.stop(crashed),
      ])
      const requests = server.inFlight
      if (requests > 0) log.warn({ requests }, 'Unanswered after DRAIN_TIMEOUT_MS')
      await resources.disposeAsync()
    },
  }
}

/** Its packages are loaded only where they are used. */
async function openShared(url: string, log: Log) {
  const { SharedCounters } = await import('./access/shared-counters.ts')
  return new SharedCounters(url, log)
}

function announce({ signInUrl, log }: Service) {
  if (signInUrl) log.info({ signInUrl }, 'Signs an operator in, once and within 10 minutes')
}

if (import.meta.main)
  process.exit(await runService(() => openService(process.env, features), announce))
