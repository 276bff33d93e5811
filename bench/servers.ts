import { spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { end, fileHere, nextMessage, orEnd } from './child.ts'
import { onServerCore } from './process.ts'

/** For the app and the floor alike; it is the app's default. */
export const POOL_SIZE = 10

const START_TIMEOUT_MS = 10_000
const POLL_MS = 20

/** A child process that listens on `url`. */
export interface Server extends AsyncDisposable {
  url: string
  pid: number
}

/** The app, which answers probes and scrapes on a port of their own. */
export interface App extends Server {
  opsUrl: string
}

/** What else one of several apps needs. */
interface AppOptions {
  /** For its process, before the name of its file. */
  nodeOptions?: string[]
  env?: NodeJS.ProcessEnv
  /** On the core that is the servers' alone. */
  pinned?: boolean
}

/**
 * The app as in production: with its log, in a file, and with nothing from this shell's
 * environment.
 */
export async function startApp(
  databaseUrl: string,
  threads: number,
  { nodeOptions = [], env = {}, pinned = false }: AppOptions = {},
): Promise<App> {
  const folder = await mkdtemp(join(tmpdir(), 'offloop-bench-'))
  const logFile = join(folder, 'app.log')
  const log = openSync(logFile, 'w')
  const [command, ...args] = nodeCommand(pinned, ...nodeOptions, fileHere('../src/main.ts'))
  const app = spawn(command, args, {
    stdio: ['ignore', log, 'inherit'],
    env: {
      NODE_ENV: 'production',
      DATABASE_URL: databaseUrl,
      DATABASE_POOL_SIZE: String(POOL_SIZE),
      PORT: '0',
      OPS_PORT: '0',
      COMPUTE_THREADS: String(threads),
      DEMO_INLINE: 'true',
      ...env,
    },
  })
  closeSync(log)
  const { url, ops = '' } = await orEnd(app, listening(logFile), START_TIMEOUT_MS)
  return {
    // By number, as the floor does: nothing to resolve.
    url: url.replace('localhost', '127.0.0.1'),
    opsUrl: ops.replace('localhost', '127.0.0.1'),
    pid: app.pid ?? 0,
    async [Symbol.asyncDispose]() {
      await end(app)
      await rm(folder, { recursive: true })
    },
  }
}

/** `floor.ts`: the same with nothing in between, on the servers' core. */
export const startFloor = (databaseUrl: string) =>
  startFile('floor.ts', databaseUrl, { pinned: true })

/**
 * `fastify.ts`: the same by Fastify with its plugins, on the servers' core, and with its log, which
 * nobody keeps.
 */
export const startFastify = (databaseUrl: string) =>
  startFile('fastify.ts', databaseUrl, { pinned: true })

/**
 * `slow-database.ts`: its url is that of a database which takes `delayMs` longer for each answer.
 */
export const startSlowDatabase = (databaseUrl: string, delayMs: number) =>
  startFile('slow-database.ts', databaseUrl, { env: { DELAY_MS: String(delayMs) } })

async function startFile(
  file: string,
  databaseUrl: string,
  { pinned = false, env = {} }: AppOptions,
): Promise<Server> {
  const [command, ...args] = nodeCommand(pinned, fileHere(file))
  const log = openSync('/dev/null', 'w')
  const server = spawn(command, args, {
    stdio: ['ignore', log, 'inherit', 'ipc'],
    env: {
      NODE_ENV: 'production',
      DATABASE_URL: databaseUrl,
      DATABASE_POOL_SIZE: String(POOL_SIZE),
      ...env,
    },
  })
  closeSync(log)
  const { url } = await nextMessage<{ url: string }>(server, START_TIMEOUT_MS)
  return { url, pid: server.pid ?? 0, [Symbol.asyncDispose]: () => end(server) }
}

/** What runs Node with `args`, on the servers' core where that is wanted and can be had. */
const nodeCommand = (pinned: boolean, ...args: string[]): [string, ...string[]] => {
  const [command = process.execPath, ...rest] = [
    ...(pinned ? onServerCore : []),
    process.execPath,
    ...args,
  ]
  return [command, ...rest]
}

/**
 * Reads the app's log until it says where it listens; `ops` is absent where that port is switched
 * off.
 */
async function listening(logFile: string): Promise<{ url: string; ops?: string }> {
  for (;;) {
    const line = (await readFile(logFile, 'utf8')).match(/^.*"url":".*$/m)?.[0]
    if (line?.endsWith('}')) return JSON.parse(line)
    await sleep(POLL_MS)
  }
}
