import { describeIncidents } from '@offloop/loopwatch/expect-event-loop-free'
import type { Incident } from '@offloop/loopwatch/incident'
import { Watchdog } from '@offloop/loopwatch/watchdog'
import { afterAll, afterEach, beforeAll, beforeEach, expect } from 'vitest'

/**
 * What handlers may take of the event loop at once, on a small and shared machine that compiles
 * them, collects garbage and runs three other files' tests meanwhile: with every core taken twice
 * over, 124 ms were seen that nobody was to blame for.
 */
const MAX_MS = 250
const HTTP_TESTS = /\/test\/(http|realtime)\/|\/routes\.test\.ts$/

/**
 * The tests that send requests run under a watchdog: a test during which code in `src/` held the
 * event loop fails, and says which function and line it was. What tests themselves do is their own
 * affair.
 */
if (HTTP_TESTS.test(expect.getState().testPath ?? '')) {
  const incidents: Incident[] = []
  let watchdog: Watchdog

  beforeAll(async () => {
    watchdog = await Watchdog.open({
      thresholdMs: MAX_MS,
      onIncident: (incident) => incidents.push(incident),
      tireless: true,
    })
    watchdog.start()
  })

  // A service that starts before the tests reads its files at once, for as long as the disk takes:
  // nobody waits for it yet.
  beforeEach(async () => {
    await watchdog.settle()
    incidents.length = 0
  })

  afterEach(async () => {
    await watchdog.settle()
    const ours = incidents.splice(0).filter(({ file }) => file.startsWith('src/'))
    expect(ours, ours.length > 0 ? describeIncidents(ours, MAX_MS) : '').toEqual([])
  })

  afterAll(() => watchdog[Symbol.asyncDispose]())
}
