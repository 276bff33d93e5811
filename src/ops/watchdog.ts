import { describeBlock } from '@offloop/loopwatch/blocking-frame'
import { Watchdog } from '@offloop/loopwatch/watchdog'
import type { Config } from '../config.ts'
import { AppError, type ErrorCode } from '../errors.ts'
import { requestInProgress } from '../http/context.ts'
import { toProblem } from '../http/errors.ts'
import { listenErrorMessage } from '../http/server.ts'
import type { Log } from '../log.ts'
import type { LiveSamples } from './live-samples.ts'
import type { Metrics } from './metrics.ts'

const CHECK_TIMEOUT_MS = 1_000

interface Parts {
  readiness: Readiness
  metrics: Metrics
  samples: LiveSamples
  log: Log
}

/**
 * Opens the thread that reports what blocks the event loop and answers on the ops port.
 *
 * @throws AppError when the ops port is taken or not allowed.
 */
export async function openWatchdog(
  { thresholdMs, probes }: Config['watchdog'],
  { readiness, metrics, samples, log }: Parts,
): Promise<Watchdog> {
  const opening = Watchdog.open({
    thresholdMs,
    probes: probes && { ...probes, problems: PROBLEMS },
    currentRequest: requestInProgress,
    readiness: readiness.find,
    metrics: metrics.scrape,
    onBlock(block) {
      metrics.observeBlock(block)
      samples.observeBlock(block)
      log.warn(block, describeBlock(block))
    },
    onCrash: (error) => log.error({ err: error }, 'Watchdog crashed'),
  })
  return opening.catch((cause) => {
    if (!probes) throw cause
    const message = listenErrorMessage(cause, probes.host, probes.port, 'OPS_PORT')
    throw new AppError('unavailable', message, { cause })
  })
}

const problem = (code: ErrorCode) => toProblem(new AppError(code, ''), '')

const PROBLEMS = {
  404: problem('not_found'),
  405: problem('method_not_allowed'),
  503: problem('unavailable'),
}

type ReadinessAnswer =
  | { ready: true; facts: object }
  | { ready: false; reason: string; cause?: unknown }

export class Readiness {
  readonly #stopping: AbortSignal
  #check: ((signal: AbortSignal) => Promise<void>) | undefined
  #valkey: { isReady: boolean } | undefined
  #checking: Promise<ReadinessAnswer> | undefined

  constructor(stopping: AbortSignal) {
    this.#stopping = stopping
  }

  /** Without its Valkey the service is ready, and says that it goes on by itself. */
  begin(check: (signal: AbortSignal) => Promise<void>, valkey?: { isReady: boolean }): void {
    this.#check = check
    this.#valkey = valkey
  }

  /** Concurrent calls share one check. */
  find = async (): Promise<ReadinessAnswer> => {
    if (this.#stopping.aborted) return { ready: false, reason: 'The service is stopping' }
    if (!this.#check) return { ready: false, reason: 'The service is starting' }
    this.#checking ??= this.#check(AbortSignal.timeout(CHECK_TIMEOUT_MS))
      .then(() => this.#toReady(), toAnswer)
      .finally(() => {
        this.#checking = undefined
      })
    return this.#checking
  }

  #toReady(): ReadinessAnswer {
    const valkey = this.#valkey && (this.#valkey.isReady ? 'ok' : 'unavailable')
    return { ready: true, facts: { valkey } }
  }
}

const toAnswer = (cause: unknown): ReadinessAnswer =>
  cause instanceof AppError
    ? { ready: false, reason: cause.message, cause: cause.cause }
    : { ready: false, reason: 'The database does not answer', cause }
