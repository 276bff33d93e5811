import { Authenticator } from './access/authenticator.ts'
import { clientFinder } from './access/client.ts'
import { identifyBy, identifyCachedBy, identifySocketBy } from './access/identify.ts'
import { Connections, RateLimits } from './access/limits.ts'
import { Passwords } from './access/password.ts'
import { createSignInLink } from './access/sign-in-link.ts'
import { createApp } from './app.ts'
import type { Deps, Feature } from './feature.ts'
import { connectionLimit, HttpServer } from './http/server.ts'
import type { Live } from './ops/live.ts'
import type { Processes } from './ops/processes.ts'
import type { Profiler } from './ops/profiles.ts'
import type { Tracing } from './ops/tracing.ts'
import { isRealtimeUpgrade, type Realtime } from './realtime/realtime.ts'
import type { Valkey } from './valkey.ts'

interface WebParts {
  config: Deps['config']
  database: Deps['database']
  compute: Deps['compute']
  features: readonly Feature[]
  valkey: Valkey | undefined
  /** Aborts when responses should ask clients to go elsewhere. */
  leaving: AbortSignal
}

interface WebOps {
  live: Live
  processes: Processes
  watchdog: Profiler
  tracing: Tracing | undefined
}

/** What clients meet: the HTTP server, who calls, and what limits them. A worker has none of it. */
export async function openWeb({ config, database, compute, features, valkey, leaving }: WebParts) {
  const { signUp, behindTls, signInLink } = config.access
  const { unlimited, maxConnections } = config.limits
  const link = signInLink ? await createSignInLink(database.withSignal()) : undefined
  const findClient = clientFinder(config.proxy)
  const shared = valkey && (await openShared(valkey))
  const limits = new RateLimits({ unlimited, ...(shared && { shared }) })
  const clients = new Connections(limits, maxConnections, config.proxy.proxies !== 0)
  const authenticator = new Authenticator(database.withSignal(), limits, valkey)
  const identifyCached = identifyCachedBy(authenticator, behindTls)
  const passwords = new Passwords(compute)
  const access = { database, passwords, authenticator, limits, signUp, behindTls }
  const server = new HttpServer({
    leaving,
    shouldUpgrade: isRealtimeUpgrade,
    maxConnections: connectionLimit(config.database.poolSize),
    backlog: database.backlog,
    backlogPaths: features.filter(({ usesDatabase }) => usesDatabase).map(({ path }) => path),
    behindTls,
    findClient,
    clients,
    findRefusal: (outgoing) => limits.findRefusal(outgoing, identifyCached(outgoing.req)),
  })
  return {
    server,
    /** A sign-in link, in development. */
    link,
    sockets: {
      server: server.node,
      identify: identifySocketBy(authenticator, behindTls, findClient),
      admit: (request: Parameters<typeof findClient>[0]) =>
        clients.admitUpgrade(findClient(request), request.socket),
    },
    /** Ends what revoked credentials have opened; returns what stops that. */
    watchCredentials(realtime: Realtime): () => void {
      const stops = [
        authenticator.onRevoke((credentialId) => realtime.disconnect(credentialId)),
        authenticator.watch(() => realtime.subjects),
      ]
      return () => {
        for (const stop of stops) stop()
      }
    },
    /** Returns the URL. @throws AppError when the port is taken or not allowed. */
    listen(deps: Deps, ops: WebOps): Promise<string> {
      const identify = identifyBy(authenticator, behindTls)
      const app = createApp({ ...deps, ...ops, access, identify }, features)
      return server.listen(app, config.http.host, config.http.port)
    },
  }
}

/** Loaded only where it is used. */
async function openShared(valkey: Valkey) {
  const { SharedCounters } = await import('./access/shared-counters.ts')
  return new SharedCounters(valkey)
}
