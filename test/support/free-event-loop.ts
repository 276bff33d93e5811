import type { Block } from '@offloop/loopwatch/blocking-frame'
import { describeBlocks } from '@offloop/loopwatch/expect-non-blocking'
import { Watchdog } from '@offloop/loopwatch/watchdog'
import { afterAll, afterEach, beforeAll, beforeEach, expect } from 'vitest'

/**
 * How long a handler may block the event loop on a small, shared machine that also compiles,
 * collects garbage and runs three other test files: with every core taken twice over, 124 ms were
 * measured that no code was to blame for.
 */
const MAX_MS = 250
const HTTP_TESTS = /\/test\/(http|realtime)\/|\/routes\.test\.ts$/

/**
 * Tests that send requests run under a watchdog: one during which code in `src/` blocked the event
 * loop fails, and names the function and line. What tests do themselves is not judged.
 */
if (HTTP_TESTS.test(expect.getState().testPath ?? '')) {
  const blocks: Block[] = []
  let watchdog: Watchdog

  beforeAll(async () => {
    watchdog = await Watchdog.open({
      thresholdMs: MAX_MS,
      onBlock: (block) => blocks.push(block),
      maxSamples: Number.POSITIVE_INFINITY,
    })
    watchdog.start()
  })

  // A service that starts before the tests reads its files synchronously: it serves nobody yet.
  beforeEach(async () => {
    await watchdog.flush()
    blocks.length = 0
  })

  afterEach(async () => {
    await watchdog.flush()
    const ours = blocks.splice(0).filter(({ file }) => file?.startsWith('src/'))
    expect(ours, ours.length > 0 ? describeBlocks(ours, MAX_MS) : '').toEqual([])
  })

  afterAll(() => watchdog[Symbol.asyncDispose]())
}
