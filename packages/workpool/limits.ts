import { DeadlineError } from './errors.ts'
import { MAX_TIMER_MS } from './timers.ts'

/** What the caller sets to work: a signal that ends it, and the time that it may take. */
export interface Limits {
  signal?: AbortSignal | undefined
  /** For waiting and running together; the signal alone decides if absent. */
  timeoutMs?: number | undefined
}

type OnLimit = (outcome: 'cancelled' | 'deadline_exceeded', reason: unknown) => void

/**
 * Tells when the work has come to one of its limits, and why. Returns what ends the watch, if there
 * is one to end.
 *
 * @param what `The task primes.count`, for the error of work that takes too long.
 */
export function watchLimits(
  { signal, timeoutMs }: Limits,
  what: () => string,
  onLimit: OnLimit,
): (() => void) | undefined {
  if (!signal && timeoutMs === undefined) return undefined
  const onAbort = () => onLimit('cancelled', signal?.reason)
  const onTimeout = () =>
    onLimit('deadline_exceeded', new DeadlineError(`${what()} took longer than ${timeoutMs} ms`))
  const timer =
    timeoutMs === undefined ? undefined : setTimeout(onTimeout, Math.min(timeoutMs, MAX_TIMER_MS))
  signal?.addEventListener('abort', onAbort)
  return () => {
    clearTimeout(timer)
    signal?.removeEventListener('abort', onAbort)
  }
}
