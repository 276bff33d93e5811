/** The longest that Node's timers can wait, in milliseconds; a longer one would fire at once. */
export const MAX_TIMER_MS = 2 ** 31 - 1

/**
 * Calls `act` after `ms`, or after some 25 days where that is longer than a timer can wait; never
 * after `Infinity`.
 */
export function startTimer(ms: number, act: () => void): NodeJS.Timeout | undefined {
  return ms === Number.POSITIVE_INFINITY ? undefined : setTimeout(act, Math.min(ms, MAX_TIMER_MS))
}

/**
 * Calls `act` every `ms` for as long as the process lives. Use it for whatever might throw, such as
 * what reads from the operating system: an exception in a timer ends the process, while this one is
 * reported, and `act` is called again in its time.
 */
export function every(
  ms: number,
  act: () => void,
  onError: (error: unknown) => void,
): NodeJS.Timeout {
  const attempt = () => {
    try {
      act()
    } catch (error) {
      onError(error)
    }
  }
  return setInterval(attempt, ms).unref()
}
