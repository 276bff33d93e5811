import { performance } from 'node:perf_hooks'
import { AppError } from './errors.ts'
import type { Log } from './log.ts'

export interface Service {
  /** Absent for ROLE=worker. */
  url: string | undefined
  /** Serves health probes and metrics; absent with OPS_PORT=off. */
  opsUrl: string | undefined
  /** In development. */
  signInUrl?: string | undefined
  log: Log
  /** Accepted work that is not finished. */
  pending(): { requests: number; tasks: number; jobs: number; sockets: number }
  /**
   * Finishes accepted work within the drain timeout, then closes everything in reverse order.
   *
   * @param crashed true after an uncaught exception.
   */
  stop(crashed?: boolean): Promise<void>
}

/** Under npm, one Ctrl-C arrives twice: from the terminal and from npm. */
const SAME_KEYSTROKE_MS = 100
const REPORT_EVERY_MS = 2_000

/**
 * Runs a service until a signal or uncaught exception, and returns the exit code. A second signal
 * exits at once.
 */
export async function runService(
  open: () => Promise<Service>,
  onReady?: (service: Service) => void,
): Promise<number> {
  const shutdown = listenForShutdown()
  let service: Service
  try {
    service = await open()
  } catch (error) {
    console.error(error instanceof AppError ? error.message : error)
    return 1
  }
  onReady?.(service)
  const reason = await shutdown.requested
  const crashed = reason instanceof Error
  const { log } = service
  if (crashed) log.fatal({ err: reason }, 'Uncaught exception, shutting down')
  else log.info({ signal: reason, ...service.pending() }, 'stopping')
  const report = () => log.info(service.pending(), 'still stopping: these are not finished')
  const timer = setInterval(report, REPORT_EVERY_MS)
  try {
    await service.stop(crashed)
    log.info('stopped')
  } catch (error) {
    log.error({ err: error }, 'Shutdown failed')
    return 1
  } finally {
    clearInterval(timer)
  }
  return shutdown.hasFailed() ? 1 : 0
}

function listenForShutdown() {
  const { promise: requested, resolve } = Promise.withResolvers<NodeJS.Signals | Error>()
  let failed = false
  let signalledAt: number | undefined

  const onSignal = (signal: NodeJS.Signals) => {
    const now = performance.now()
    if (signalledAt !== undefined && now - signalledAt > SAME_KEYSTROKE_MS) process.exit(1)
    signalledAt ??= now
    resolve(signal)
  }
  const onError = (error: unknown) => {
    failed = true
    resolve(error instanceof Error ? error : new Error(`Rejected with ${String(error)}`))
  }
  process.on('SIGTERM', onSignal).on('SIGINT', onSignal)
  process.on('unhandledRejection', onError).on('uncaughtException', onError)
  return { requested, hasFailed: () => failed }
}
