/**
 * Calls `act` every `ms`, without keeping the process alive. An exception in a timer would end the
 * process: this one goes to `onError`, and `act` is called again.
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
