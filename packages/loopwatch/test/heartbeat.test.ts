import { expect, test } from 'vitest'
import { createCells, Heartbeat } from '../heartbeat.ts'

const BLOCK_MS = 1_000
const NS_PER_MS = 1_000_000

/** The longest delay of an event loop that was blocked, for `withoutCoreMs` for want of a core. */
function block(withoutCoreMs: number) {
  const startedAt = performance.now()
  let runQueueDelayNs = 0n
  const heartbeat = new Heartbeat(createCells(), 10, () => ({ runQueueDelayNs, totalNs: 0n }))
  for (const end = performance.now() + BLOCK_MS; performance.now() < end; );
  runQueueDelayNs = BigInt(withoutCoreMs * NS_PER_MS)
  const delayMs = heartbeat.readDelay().max
  return { delayMs, blockedMs: performance.now() - startedAt }
}

test('a block counts in full', () => {
  expect(block(0).delayMs).toBeGreaterThan(900)
})

test('time without a core does not count', () => {
  const { delayMs, blockedMs } = block(800)
  expect(delayMs).toBeGreaterThan(100)
  expect(delayMs).toBeLessThan(blockedMs - 800)
})
