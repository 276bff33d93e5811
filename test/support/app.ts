import { createServer } from 'node:http'
import { Jobs } from '@offloop/jobs/jobs'
import { Pool } from '@offloop/workpool/pool'
import { Authenticator } from '../../src/access/authenticator.ts'
import { RateLimits } from '../../src/access/limits.ts'
import { Passwords } from '../../src/access/password.ts'
import { createApp } from '../../src/app.ts'
import { loadConfig } from '../../src/config.ts'
import { afterCommit, transaction } from '../../src/db/transaction.ts'
import type { Feature } from '../../src/feature.ts'
import { features } from '../../src/features/index.ts'
import { getContext } from '../../src/http/context.ts'
import { toAppError } from '../../src/http/errors.ts'
import { openLog } from '../../src/log.ts'
import { Live } from '../../src/ops/live.ts'
import { Metrics } from '../../src/ops/metrics.ts'
import { Processes } from '../../src/ops/processes.ts'
import { Realtime } from '../../src/realtime/realtime.ts'
import { createDatabase } from './database.ts'
import { OPERATOR } from './operator.ts'

const PROCESS = 'host:1:test'

/**
 * What the app needs, on a migrated database of the test's own: threads, but no socket and no loop
 * of the jobs.
 */
export async function openDeps(env: NodeJS.ProcessEnv = {}) {
  const { url, database, close: closeDatabase } = await createDatabase()
  const config = loadConfig({
    NODE_ENV: 'test',
    LOG_LEVEL: 'silent',
    DATABASE_URL: url,
    COMPUTE_THREADS: '1',
    ...env,
  })
  const log = openLog(config.log)
  const stopping = new AbortController().signal
  const entry = new URL('../../src/thread.ts', import.meta.url)
  const compute = await Pool.open({ ...config.compute, entry, stopping })
  const realtime = new Realtime({ server: createServer(), topics: [], corsOrigins: [] })
  const live = new Live(PROCESS)
  const jobs = new Jobs({
    worker: PROCESS,
    open: (signal, options) => database.withSignal(signal, options),
    transaction,
    afterCommit,
    publicMessage: (error) => toAppError(error).message,
    log,
    ...config.jobs,
  })
  const deps: Parameters<typeof createApp>[0] = {
    config,
    database,
    compute,
    jobs,
    realtime,
    log,
    stopping,
    access: {
      database,
      passwords: new Passwords(compute),
      authenticator: new Authenticator(database.withSignal()),
      limits: new RateLimits({ unlimited: 'all' }),
      ...config.access,
    },
    identify(c) {
      getContext(c).subject = OPERATOR
      return undefined
    },
    metrics: new Metrics(),
    live,
    processes: new Processes({
      id: PROCESS,
      role: 'all',
      database,
      samples: live.samples,
      compute,
      jobs,
      log,
    }),
    watchdog: { profile: async () => new Uint8Array(), endProfile: () => false },
  }
  return {
    deps,
    async close() {
      await realtime[Symbol.asyncDispose]()
      await jobs[Symbol.asyncDispose]()
      await compute[Symbol.asyncDispose]()
      await closeDatabase()
    },
  }
}

/**
 * The app without a socket: `request` sends JSON and reads JSON. What Node's response adds, such as
 * the security headers, is absent.
 */
export async function openApp(env?: NodeJS.ProcessEnv, served: readonly Feature[] = features) {
  const { deps, close } = await openDeps(env)
  const app = createApp(deps, served)
  return {
    app,
    fetch: (path: string, init?: RequestInit) => app.request(path, init),
    database: deps.database,
    async request(
      path: string,
      method = 'GET',
      body?: unknown,
      headers: Record<string, string> = {},
    ) {
      const content = body === undefined ? {} : { body: JSON.stringify(body) }
      const type: Record<string, string> = body === undefined ? {} : { 'content-type': JSON_TYPE }
      const response = await app.request(path, {
        method,
        headers: { ...type, ...headers },
        ...content,
      })
      const text = await response.text()
      return { status: response.status, headers: response.headers, body: text && JSON.parse(text) }
    },
    close,
  }
}

const JSON_TYPE = 'application/json'
