import { performance } from 'node:perf_hooks'
import { AppError } from './errors.ts'
import type { Log } from './log.ts'

/** A running offloop. */
export interface Service {
  url: string
  /**
   * Where its health and metrics are answered whatever holds the event loop; absent if OPS_PORT is
   * off.
   */
  opsUrl: string | undefined
  log: Log
  /** How much of what was accepted is not finished yet. */
  pending(): { requests: number; tasks: number; jobs: number; sockets: number }
  /**
   * Finishes what was accepted, within the drain deadline, then closes everything in the reverse
   * order of its opening.
   *
   * @param crashed whether an error that nobody caught is the reason.
   */
  stop(crashed?: boolean): Promise<void>
}

/**
 * Under npm, Ctrl-C reaches a process twice: from the terminal, and passed on by npm. This close,
 * it was one key.
 */
const SAME_KEYSTROKE_MS = 100
/** How often the log says what a stop still waits for. */
const REMIND_EVERY_MS = 2_000

/**
 * Runs a service until SIGTERM, SIGINT or an error that nobody caught, stops it, and resolves with
 * the exit code. A second signal exits at once.
 */
export async function runService(
  open: () => Promise<Service>,
  onReady?: (service: Service) => void,
): Promise<number> {
  const stop = listenForStop()
  let service: Service
  try {
    service = await open()
  } catch (error) {
    console.error(error instanceof AppError ? error.message : error)
    return 1
  }
  onReady?.(service)
  const reason = await stop.told
  const { log } = service
  if (reason instanceof Error) log.fatal({ err: reason }, 'An error that nobody caught: stopping')
  else log.info({ signal: reason, ...service.pending() }, 'stopping')
  const reminder = setInterval(
    () => log.info(service.pending(), 'still stopping, because these are not finished'),
    REMIND_EVERY_MS,
  )
  try {
    await service.stop(reason instanceof Error)
    log.info('stopped')
  } catch (error) {
    log.error({ err: error }, 'Could not stop cleanly')
    return 1
  } finally {
    clearInterval(reminder)
  }
  return stop.failed() ? 1 : 0
}

/**
 * From here on signals and uncaught errors end the process only by way of `told`, or by a second
 * signal.
 */
function listenForStop() {
  const { promise: told, resolve } = Promise.withResolvers<NodeJS.Signals | Error>()
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
  return { told, failed: () => failed }
}
