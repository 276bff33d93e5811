import cluster from 'node:cluster'
import { once } from 'node:events'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { type Config, loadConfig } from './config.ts'
import { AppError } from './errors.ts'
import { type Log, openLog } from './log.ts'

const MAX_PROCESSES = 256
const RESTART_DELAY_MS = 1_000
const MAX_RESTART_DELAY_MS = 30_000
/** After this the delay is short again. */
const STABLE_MS = 60_000

/** @throws AppError `invalid` for other arguments than `--processes N`. */
export function readProcesses(args: readonly string[]): number {
  try {
    const { values } = parseArgs({ args: [...args], options: { processes: { type: 'string' } } })
    const { processes = '1' } = values
    if (!/^\d+$/.test(processes) || Number(processes) < 1 || Number(processes) > MAX_PROCESSES)
      throw new Error(`--processes takes a number from 1 to ${MAX_PROCESSES}, got "${processes}"`)
    return Number(processes)
  } catch (error) {
    throw new AppError('invalid', (error as Error).message)
  }
}

/**
 * Runs `count` processes, which share port and threads, until a signal; returns the exit code. One
 * that crashes is started again.
 *
 * @param onReady called once all of them serve.
 * @throws AppError `invalid` for a configuration that several processes cannot have.
 */
export async function supervise(
  count: number,
  env: NodeJS.ProcessEnv,
  onReady: () => void = () => {},
): Promise<number> {
  const config = loadConfig(env)
  assertShareable(config)
  const log = openLog(config.log)
  const stopping = new AbortController()
  let exitCode = 0
  let starting = count
  const stop = (signal: NodeJS.Signals) => {
    stopping.abort()
    for (const worker of Object.values(cluster.workers ?? {})) worker?.process.kill(signal)
  }
  process.on('SIGTERM', stop).on('SIGINT', stop)

  cluster.setupPrimary({ exec: join(import.meta.dirname, 'main.ts'), args: [] })
  const onListening = () => {
    if (--starting === 0) onReady()
  }
  const keep = async (index: number) => {
    let delayMs = RESTART_DELAY_MS
    let hasServed = false
    while (!stopping.signal.aborted) {
      const startedAt = performance.now()
      const { code, hasListened } = await run(toEnv(env, config, index, count), onListening)
      hasServed ||= hasListened
      if (stopping.signal.aborted || !hasServed) {
        if (code !== 0) exitCode = 1
        // A second signal would end the others at once.
        if (!stopping.signal.aborted) stop('SIGTERM')
        return
      }
      if (performance.now() - startedAt > STABLE_MS) delayMs = RESTART_DELAY_MS
      log.error({ index, code, delayMs }, 'A process ended: starting it again')
      await sleep(delayMs, undefined, { signal: stopping.signal }).catch(() => {})
      delayMs = Math.min(2 * delayMs, MAX_RESTART_DELAY_MS)
    }
  }
  await Promise.all(Array.from({ length: count }, (_, index) => keep(index)))
  return exitCode
}

/** Tells the supervisor, if there is one, that this process serves. */
export function reportListening(log: Log): void {
  cluster.worker?.send('listening', (error) => {
    if (error) log.warn({ err: error }, 'The supervisor does not answer')
  })
}

async function run(env: NodeJS.ProcessEnv, onListening: () => void) {
  let hasListened = false
  try {
    const worker = cluster.fork(env)
    worker.once('message', () => {
      hasListened = true
      onListening()
    })
    const [code, signal] = await once(worker, 'exit')
    return { code: code ?? signal, hasListened }
  } catch (error) {
    return { code: (error as Error).message, hasListened }
  }
}

function assertShareable({ role, http, valkeyUrl }: Config) {
  if (!valkeyUrl)
    throw new AppError(
      'invalid',
      'Several processes share push and limits by VALKEY_URL, which is not set; ' +
        'it looks like redis://host:6379',
    )
  if (role !== 'worker' && http.port === 0)
    throw new AppError('invalid', 'Several processes share one port: set PORT to another than 0')
}

/** Each has its share of the threads, and an ops port of its own. */
function toEnv(env: NodeJS.ProcessEnv, config: Config, index: number, count: number) {
  const { threads } = config.compute
  const share = Math.floor(threads / count) + (index < threads % count ? 1 : 0)
  const port = config.watchdog.probes?.port
  return {
    ...env,
    COMPUTE_THREADS: String(Math.max(1, share)),
    ...(port ? { OPS_PORT: String(port + index) } : {}),
  }
}
