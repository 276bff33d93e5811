import { expect, test } from 'vitest'
import { createCells, Heartbeat, type LateBeat } from '../heartbeat.ts'

const BLOCK_MS = 1_000
const NS_PER_MS = 1_000_000

/** The longest delay of an event loop that was blocked, for `withoutCoreMs` for want of a core. */
function block(withoutCoreMs: number) {
  const startedAt = performance.now()
  const late: LateBeat[] = []
  let runQueueDelayNs = 0n
  const heartbeat = new Heartbeat({
    cells: createCells(),
    periodMs: 10,
    thresholdMs: 500,
    onLate: (one) => late.push(one),
    readThreadTime: () => ({ runQueueDelayNs }),
  })
  heartbeat.beat()
  for (const end = performance.now() + BLOCK_MS; performance.now() < end; );
  runQueueDelayNs = BigInt(withoutCoreMs * NS_PER_MS)
  heartbeat.beat()
  heartbeat.beat()
  const { max: delayMs, withoutCoreMs: shownMs } = heartbeat.readDelay()
  const { withoutCoreMs: nextMs } = heartbeat.readDelay()
  return {
    delayMs,
    blockedMs: performance.now() - startedAt,
    withoutCoreMs: [shownMs, nextMs],
    late,
  }
}

test('a block counts in full, and is reported once', () => {
  const { delayMs, blockedMs, late } = block(0)
  expect(delayMs).toBeGreaterThan(900)
  expect(late.map(({ blockedMs }) => blockedMs)).toEqual([expect.closeTo(blockedMs - 10, -2)])
})

test('time without a core is no delay and no block, and is reported once', () => {
  const { delayMs, blockedMs, withoutCoreMs: reported, late } = block(800)
  expect(late).toEqual([])
  expect(reported).toEqual([800, 0])
  expect(delayMs).toBeGreaterThan(100)
  expect(delayMs).toBeLessThan(blockedMs - 800)
})
