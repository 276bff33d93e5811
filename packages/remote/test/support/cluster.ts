import type { PoolOptions, Timing } from '@offloop/workpool/pool'
import { onTestFinished } from 'vitest'
import { openLog } from '../../../../src/log.ts'
import { Valkey } from '../../../../src/valkey.ts'
import { startProcess } from '../../../../test/support/process.ts'
import { until } from '../../../../test/support/until.ts'
import { useValkey } from '../../../../test/support/valkey.ts'
import { usePool } from '../../../workpool/test/support/pool.ts'
import { type Outcome, RemoteClient } from '../../client.ts'
import { type CallSignal, toChannel } from '../../protocol.ts'

const SERVER = 'packages/remote/test/support/server-process.ts'

const log = openLog({ level: 'silent', format: 'json' })

interface ClusterOptions extends Partial<PoolOptions> {
  /** Processes that serve. */
  servers?: number
  /** Of each. */
  serverThreads?: number
  /** The way to Valkey of the client and of the servers. */
  route?: (url: string) => string | Promise<string>
}

/** A pool with one thread, and processes that serve its distributed calls. */
export async function useCluster({
  servers: count = 1,
  serverThreads = 1,
  route = (url) => url,
  ...options
}: ClusterOptions = {}) {
  const valkey = await useValkey()
  const url = await route(valkey.url)
  const outcomes: Outcome[] = []
  const connections = new Valkey(url, log)
  const client = new RemoteClient({
    valkey: connections,
    id: 'client',
    onOutcome: (outcome) => outcomes.push(outcome),
  })
  const starts: { id: string; server: string }[] = []
  connections.subscribe(toChannel('client'), (message) => {
    const signal = message as CallSignal
    if ('server' in signal) starts.push(signal)
  })
  onTestFinished(async () => {
    await client[Symbol.asyncDispose]()
    connections[Symbol.dispose]()
  })
  const servers: ReturnType<typeof startServer>[] = []
  const addServer = (env: NodeJS.ProcessEnv = {}) => {
    const server = startServer({
      VALKEY_URL: url,
      SERVER: `server-${servers.length}`,
      THREADS: `${serverThreads}`,
      ...env,
    })
    servers.push(server)
    return server
  }
  for (let number = 0; number < count; number++) addServer()
  const entry = new URL('./worker.ts', import.meta.url)
  const local = await usePool({ threads: 1, entry, remote: client, ...options })
  const places = () => client.places('test.give')
  await until(() => places() === count * serverThreads * 2, 'all servers are known')
  return { ...local, valkey, connections, client, outcomes, servers, addServer, places, starts }
}

function startServer(env: NodeJS.ProcessEnv) {
  const { child, output, exitCode } = startProcess(SERVER, env)
  onTestFinished(() => void child.kill('SIGKILL'))
  return {
    output,
    exitCode,
    hasEnded: () => child.signalCode !== null,
    kill: (signal: NodeJS.Signals = 'SIGKILL') => child.kill(signal),
    /** When its threads were busy first, or idle again. */
    timeOf: (state: 'busy' | 'idle') =>
      Number(output().match(new RegExp(`^${state} (\\d+)$`, 'm'))?.[1] ?? 0),
    /** What its threads have ended. */
    timings: (): Timing[] =>
      output()
        .split('\n')
        .filter((line) => line.startsWith('{"task"') && line.endsWith('}'))
        .map((line) => JSON.parse(line))
        .filter(({ task }) => task !== 'workpool.list-tasks'),
  }
}
