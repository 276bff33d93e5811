import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { features } from '../../src/features/index.ts'
import { openService } from '../../src/main.ts'
import { createDatabase } from './database.ts'
import { AS_OPERATOR } from './operator.ts'
import { until } from './until.ts'

// Each service writes the rest of its log when the process exits: that a test file opens many of
// them is no leak.
process.setMaxListeners(0)

const openAll = (env: NodeJS.ProcessEnv) => openService(env, features)

/**
 * The whole service, on a free port and a migrated database of its own; `close()` stops it and
 * drops the database.
 */
export async function startService(env: NodeJS.ProcessEnv = {}, open = openAll) {
  const { url: databaseUrl, database, close: closeDatabase } = await createDatabase()
  // feature: reports
  const reportDirectory = await mkdtemp(join(tmpdir(), 'offloop-reports-'))
  // /feature
  const service = await open({
    NODE_ENV: 'test',
    LOG_LEVEL: 'silent',
    PORT: '0',
    OPS_PORT: '0',
    // A tenth of it is how long a stop waits for connections that are idle, such as those of `fetch`.
    DRAIN_TIMEOUT_MS: '1000',
    COMPUTE_THREADS: '2',
    RATE_LIMITS: 'off',
    // On a busy machine any statement is slow.
    SLOW_QUERY_MS: '0',
    DATABASE_URL: databaseUrl,
    // feature: reports
    REPORT_DIR: reportDirectory,
    // /feature
    ...env,
  })
  let stopped: Promise<void> | undefined
  const stop = () => (stopped ??= service.stop())
  return {
    url: service.url ?? '',
    opsUrl: service.opsUrl ?? '',
    signInUrl: service.signInUrl,
    databaseUrl,
    database,
    // feature: reports
    reportDirectory,
    // /feature
    stop,
    async close() {
      await stop()
      await closeDatabase()
      // feature: reports
      await rm(reportDirectory, { recursive: true })
      // /feature
    },
  }
}

/** The same, stopped when the running test ends. */
export async function useService(env?: NodeJS.ProcessEnv, open = openAll) {
  const { close, ...service } = await startService(env, open)
  onTestFinished(close)
  return service
}

/** Sends JSON and reads JSON, as the operator unless `headers` has another `authorization`. */
export async function request(
  url: string,
  method = 'GET',
  body?: unknown,
  headers: Record<string, string> = {},
) {
  const response = await fetch(url, {
    method,
    headers: {
      ...AS_OPERATOR,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      ...headers,
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  const text = await response.text()
  return { status: response.status, headers: response.headers, body: text && JSON.parse(text) }
}

/** Sends a request whose answer nobody reads; abort it to go away. */
export function startRequest(url: string): AbortController {
  const controller = new AbortController()
  fetch(url, { signal: controller.signal }).catch(() => {})
  return controller
}

/** `/metrics` on the ops port as of now: while the event loop is blocked, an older page comes. */
export async function readMetrics(opsUrl: string): Promise<string> {
  const from = performance.now()
  return until(async () => {
    const page = await (await fetch(`${opsUrl}/metrics`)).text()
    const [, ageSeconds] = page.match(/^metrics_snapshot_age_seconds (.*)$/m) ?? []
    return Number(ageSeconds) * 1_000 < performance.now() - from ? page : undefined
  }, 'a page of now')
}

/** A figure without labels of `/metrics`. */
export async function metric(opsUrl: string, name: string): Promise<number> {
  const page = await readMetrics(opsUrl)
  return Number(page.match(new RegExp(`^${name} (.*)$`, 'm'))?.[1])
}

export const untilRunning = (opsUrl: string, tasks: number) =>
  until(async () => (await metric(opsUrl, 'compute_threads_busy')) === tasks, `${tasks} tasks run`)

/**
 * They must be free soon: tasks stop when nobody waits for them. How soon, `npm run bench`
 * measures: here other tests have the cores, too, and go before threads, whose priority is the
 * lowest. So this is only less than the tasks of the tests take.
 */
export const untilThreadsFree = (opsUrl: string) =>
  until(async () => (await metric(opsUrl, 'compute_threads_busy')) === 0, 'threads free', 15_000)
