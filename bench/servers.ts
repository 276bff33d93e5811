import { fork, spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { end, fileHere, nextMessage, orEnd } from './child.ts'

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
interface App extends Server {
  opsUrl: string
}

/** What else one of several apps needs. */
interface AppOptions {
  /** For its process, before the name of its file. */
  nodeOptions?: string[]
  env?: NodeJS.ProcessEnv
}

/** The app as in production: with its log, in a file, and with nothing from this shell's environment. */
export async function startApp(
  databaseUrl: string,
  threads: number,
  { nodeOptions = [], env = {} }: AppOptions = {},
): Promise<App> {
  const folder = await mkdtemp(join(tmpdir(), 'offloop-bench-'))
  const logFile = join(folder, 'app.log')
  const log = openSync(logFile, 'w')
  const app = spawn(process.execPath, [...nodeOptions, fileHere('../src/main.ts')], {
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

/** `floor.ts`: the same reads with nothing in between. */
export async function startFloor(databaseUrl: string): Promise<Server> {
  const floor = fork(fileHere('floor.ts'), { env: { DATABASE_URL: databaseUrl, DATABASE_POOL_SIZE: String(POOL_SIZE) } })
  const { url } = await nextMessage<{ url: string }>(floor, START_TIMEOUT_MS)
  return { url, pid: floor.pid ?? 0, [Symbol.asyncDispose]: () => end(floor) }
}

/** Reads the app's log until it says where it listens; `ops` is absent where that port is switched off. */
async function listening(logFile: string): Promise<{ url: string; ops?: string }> {
  for (;;) {
    const line = (await readFile(logFile, 'utf8')).match(/^.*"url":".*$/m)?.[0]
    if (line?.endsWith('}')) return JSON.parse(line)
    await sleep(POLL_MS)
  }
}
