import { expect, test } from 'vitest'
import { LoopDelay } from '../../src/ops/loop-delay.ts'

const BLOCK_MS = 1_000
const NS_PER_MS = 1_000_000

/**
 * The longest delay of an event loop that was blocked for `blockedMs`, of which `withoutCoreMs`
 * without a core.
 */
function block(withoutCoreMs: number) {
  const startedAt = performance.now()
  let waited = 0n
  using delay = new LoopDelay(() => waited)
  for (const end = performance.now() + BLOCK_MS; performance.now() < end; );
  waited = BigInt(withoutCoreMs * NS_PER_MS)
  const delayMs = delay.read().max
  return { delayMs, blockedMs: performance.now() - startedAt }
}

test('a block counts in full', () => {
  expect(block(0).delayMs).toBeGreaterThan(900)
})

test('time without a core does not count, as it does not for the watchdog', () => {
  const { delayMs, blockedMs } = block(800)
  expect(delayMs).toBeGreaterThan(100)
  expect(delayMs).toBeLessThan(blockedMs - 800)
})
