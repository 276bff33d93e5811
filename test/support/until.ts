import { setTimeout as sleep } from 'node:timers/promises'

/** Polls until `check` gives something truthy, and gives it back. @throws Error after `timeoutMs`. */
export async function until<T>(check: () => T | Promise<T>, what: string, timeoutMs = 10_000): Promise<NonNullable<T>> {
  for (const deadline = performance.now() + timeoutMs; ; ) {
    const result = await check()
    if (result) return result
    if (performance.now() > deadline) throw new Error(`Not within ${timeoutMs} ms: ${what}`)
    await sleep(5)
  }
}
