/**
 * Calls `act` every `ms`. An exception, which would end the process in a plain timer, goes to
 * `onError`.
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
