import './load-env.ts'
import { findOrCreateOperator } from '../src/access/accounts.ts'
import { createCredential, deleteCredentials, listCredentials } from '../src/access/credentials.ts'
import { type Config, loadConfig } from '../src/config.ts'
import { Database } from '../src/db/database.ts'
import { AppError } from '../src/errors.ts'
import type { Feature } from '../src/feature.ts'
import { features } from '../src/features/index.ts'
import { openService } from '../src/main.ts'
import { runService, type Service } from '../src/shutdown.ts'
import { readProcesses, supervise } from '../src/supervisor.ts'
import { type LocalDatabase, openLocalDatabase } from './database/local-database.ts'
import { openLocalValkey } from './database/local-valkey.ts'
import { prepareDatabase } from './prepare-database.ts'

const KEY_NAME = 'npm start'
const DAY_MS = 86_400_000

const suggestions = features.flatMap(({ suggestions = [] }: Feature) => suggestions)
const scopes = suggestions.flatMap(({ scope = [] }) => scope)

/**
 * `npm start`: a database, its schema, some examples in it, and the service on top; Ctrl-C ends all
 * of it.
 */
let database: LocalDatabase | undefined
let valkey: LocalDatabase | undefined
let key: string | undefined

const code = await start().catch((error) => {
  console.error(error instanceof AppError ? error.message : error)
  return 1
})
await valkey?.stop()
await database?.stop()
process.exit(code)

async function start(): Promise<number> {
  const processes = readProcesses(process.argv.slice(2))
  if (processes === 1)
    return runService(
      async () => openService(await prepare(), features),
      (service) => console.log(welcome(service)),
    )
  valkey = await openLocalValkey()
  const env = { ...(await prepare()), VALKEY_URL: valkey.url }
  const { host, port } = loadConfig(env).http
  const url = `http://${host === '127.0.0.1' ? 'localhost' : host}:${port}`
  return supervise(processes, env, () => console.log(welcome({ url })))
}

/** Returns the environment of the service. */
async function prepare(): Promise<NodeJS.ProcessEnv> {
  database = await openLocalDatabase()
  await prepareDatabase(database.url)
  const env = {
    NODE_ENV: 'development',
    // feature: primes
    DEMO_INLINE: 'true',
    // /feature
    ...process.env,
    DATABASE_URL: database.url,
  }
  const config = loadConfig(env)
  if (config.access.signInLink && scopes.length > 0) key = await createKey(config)
  return env
}

/** Of the local operator, for the suggestions only. It replaces the key of an earlier start. */
async function createKey(config: Config): Promise<string> {
  await using opened = await Database.open(config.database)
  const db = opened.withSignal()
  const accountId = await findOrCreateOperator(db)
  for (const { id, name } of await listCredentials(db, accountId, 'key'))
    if (name === KEY_NAME) await deleteCredentials(db, accountId, 'key', { id })
  const { token } = await createCredential(db, {
    kind: 'key',
    accountId,
    name: KEY_NAME,
    scopes,
    expiresAt: new Date(Date.now() + DAY_MS),
  })
  return token
}

function welcome({ url, opsUrl, signInUrl }: Pick<Service, 'url'> & Partial<Service>) {
  const commands = suggestions
    .filter(({ scope }) => key || !scope)
    .map(({ curl, scope }) => {
      const authorization = scope ? ` -H "authorization: Bearer ${key}"` : ''
      return `curl ${curl.replace('$URL', url ?? '')}${authorization}`
    })
  if (opsUrl) commands.unshift(`curl ${opsUrl}/health/ready`)
  return `
offloop runs on ${url}
${signInUrl ? `Sign in, once and within 10 minutes: ${signInUrl}\n` : ''}Database: ${database?.label}${valkey ? `\nValkey: ${valkey.label}` : ''}

Worth trying:
${commands.map((command) => `  ${command}`).join('\n')}

The API to read and try: ${url}/docs
Ctrl-C stops it all; the data stays.
`
}
