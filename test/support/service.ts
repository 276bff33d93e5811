import { onTestFinished } from 'vitest'
import { openService } from '../../src/main.ts'
import { createDatabase } from './database.ts'

/** The whole service, on a free port and a migrated database of its own; `close()` stops it and drops the database. */
export async function startService(env: NodeJS.ProcessEnv = {}) {
  const { url: databaseUrl, database, close: closeDatabase } = await createDatabase()
  const service = await openService({
    NODE_ENV: 'test',
    LOG_LEVEL: 'silent',
    PORT: '0',
    COMPUTE_THREADS: '2',
    DATABASE_URL: databaseUrl,
    ...env,
  })
  let stopped: Promise<void> | undefined
  const stop = () => (stopped ??= service.stop())
  return {
    url: service.url,
    databaseUrl,
    database,
    stop,
    async close() {
      await stop()
      await closeDatabase()
    },
  }
}

/** The same, stopped when the running test ends. */
export async function useService(env?: NodeJS.ProcessEnv) {
  const { close, ...service } = await startService(env)
  onTestFinished(close)
  return service
}

/** Sends JSON and reads JSON. */
export async function request(url: string, method = 'GET', body?: unknown, headers: Record<string, string> = {}) {
  const response = await fetch(url, {
    method,
    headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  const text = await response.text()
  return { status: response.status, headers: response.headers, body: text && JSON.parse(text) }
}
