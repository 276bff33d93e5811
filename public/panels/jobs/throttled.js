const MIN_PAUSE_MS = 1_000
/** What takes long is done less often. */
const PAUSE_PER_MS = 10
const MAX_PAUSE_MS = 5_000

/**
 * Acts at once, but not again within the pause, and then once at its end; `now` does not wait.
 * Failures are ignored: after an outage everything is read again.
 *
 * @param {() => Promise<void>} act
 * @param {number} [minPauseMs]
 */
export function throttled(act, minPauseMs = MIN_PAUSE_MS) {
  let isResting = false
  let isWanted = false
  let turn = 0

  async function run() {
    const mine = ++turn
    isResting = true
    isWanted = false
    const startedAt = performance.now()
    await act().catch(() => {})
    const longMs = Math.min(PAUSE_PER_MS * (performance.now() - startedAt), MAX_PAUSE_MS)
    setTimeout(
      () => {
        if (mine !== turn) return
        isResting = false
        if (isWanted) run()
      },
      Math.max(minPauseMs, longMs),
    )
  }
  const soon = () => {
    if (isResting) isWanted = true
    else run()
  }
  return Object.assign(soon, { now: run })
}
