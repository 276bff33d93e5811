import { setTimeout as sleep } from 'node:timers/promises'

/**
 * Polls until `check` gives something truthy, and gives it back. The last check begins after
 * `timeoutMs`: what a slow one says that began long before is not how things are by then.
 *
 * @throws Error after `timeoutMs`.
 */
export async function until<T>(
  check: () => T | Promise<T>,
  what: string,
  timeoutMs = 30_000,
): Promise<NonNullable<T>> {
  for (const deadline = performance.now() + timeoutMs; ; ) {
    const isLast = performance.now() > deadline
    const result = await check()
    if (result) return result
    if (isLast) throw new Error(`Not within ${timeoutMs} ms: ${what}`)
    await sleep(5)
  }
}
