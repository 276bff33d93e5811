import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { end, nextMessage, orEnd } from './child.ts'
import { onServerCore } from './cores.ts'

/** For all servers alike; it is the service's default. */
export const POOL_SIZE = 10

const ROOT = join(import.meta.dirname, '../..')
const START_TIMEOUT_MS = 10_000
const POLL_MS = 20

/** A child process that listens on `url`. */
export interface Server extends AsyncDisposable {
  url: string
  pid: number
}

/** The service, whose probes and scrapes have a port of their own. */
export interface App extends Server {
  opsUrl: string
}

interface ServerOptions {
  /** For Node, before the name of the file. */
  nodeOptions?: string[]
  env?: NodeJS.ProcessEnv
  /** Whether it runs on the core that is the servers' alone. */
  pinned?: boolean
}

/** Starts the service as in production: with its log in a file, and no variable of this shell. */
export async function startApp(
  databaseUrl: string,
  threads: number,
  { env = {}, nodeOptions = [], pinned }: ServerOptions = {},
): Promise<App> {
  const folder = await mkdtemp(join(tmpdir(), 'offloop-bench-'))
  const logFile = join(folder, 'app.log')
  const app = startNode('src/main.ts', logFile, {
    nodeOptions,
    ...(pinned && { pinned }),
    env: {
      DATABASE_URL: databaseUrl,
      PORT: '0',
      OPS_PORT: '0',
      COMPUTE_THREADS: String(threads),
      // feature: primes
      DEMO_INLINE: 'true',
      // /feature
      ...env,
    },
  })
  const { url, ops = '' } = await orEnd(app, readAddresses(logFile), START_TIMEOUT_MS)
  return {
    // By number, as the other servers do: nothing to resolve.
    url: url.replace('localhost', '127.0.0.1'),
    opsUrl: ops.replace('localhost', '127.0.0.1'),
    pid: app.pid ?? 0,
    async [Symbol.asyncDispose]() {
      await end(app)
      await rm(folder, { recursive: true })
    },
  }
}

/** Starts a file that sends its `url` by IPC. Nobody keeps its log. */
export async function startServer(
  path: string,
  databaseUrl: string,
  { env, ...options }: ServerOptions = {},
): Promise<Server> {
  const server = startNode(path, '/dev/null', {
    ...options,
    env: { DATABASE_URL: databaseUrl, ...env },
  })
  const { url } = await nextMessage<{ url: string }>(server, START_TIMEOUT_MS)
  return { url, pid: server.pid ?? 0, [Symbol.asyncDispose]: () => end(server) }
}

function startNode(
  path: string,
  logFile: string,
  { nodeOptions = [], env = {}, pinned = false }: ServerOptions,
): ChildProcess {
  const log = openSync(logFile, 'w')
  const command = [...(pinned ? onServerCore : []), join(ROOT, 'bin/node'), ...nodeOptions]
  const server = spawn(command[0] ?? '', [...command.slice(1), join(ROOT, path)], {
    stdio: ['ignore', log, 'inherit', 'ipc'],
    env: {
      PATH: process.env['PATH'],
      NODE_ENV: 'production',
      DATABASE_POOL_SIZE: String(POOL_SIZE),
      ...env,
    },
  })
  closeSync(log)
  return server
}

/** Reads the log until the service says where it listens; `ops` is absent if it is off. */
async function readAddresses(logFile: string): Promise<{ url: string; ops?: string }> {
  for (;;) {
    const line = (await readFile(logFile, 'utf8')).match(/^.*"url":".*$/m)?.[0]
    if (line?.endsWith('}')) return JSON.parse(line)
    await sleep(POLL_MS)
  }
}

/** A figure without labels of the service's `/metrics`. */
export async function readMetric(appUrl: string, name: string): Promise<number> {
  const text = await (await fetch(`${appUrl}/metrics`)).text()
  return Number(text.match(new RegExp(`^${name} (.*)$`, 'm'))?.[1])
}
