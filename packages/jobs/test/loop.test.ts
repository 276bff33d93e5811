import { pino } from 'pino'
import { expect, onTestFinished, test } from 'vitest'
import { overloaded } from '../../../src/errors.ts'
import { until } from '../../../test/support/until.ts'
import { Loop } from '../loop.ts'

function useLoop(runOnce: () => Promise<boolean>, { restMs = 60_000, maxBackoffMs = 5_000 } = {}) {
  const lines: string[] = []
  const log = pino(
    { level: 'info' },
    { write: (line: string) => void lines.push(JSON.parse(line).msg) },
  )
  const loop = new Loop({ name: 'test', log, restMs, maxBackoffMs, runOnce })
  onTestFinished(() => loop.stop())
  loop.start()
  return { loop, lines }
}

test('takes turns without a rest while there is more to do', async () => {
  let turns = 0
  useLoop(async () => ++turns < 5)
  await until(() => turns === 5, 'it took them')
})

test('rests no longer than until it is woken, even if that was while it took a turn', async () => {
  let turns = 0
  const { promise: turn, resolve: end } = Promise.withResolvers<void>()
  const { loop } = useLoop(async () => {
    if (++turns === 1) await turn
    return false
  })
  loop.wake()
  end()
  await until(() => turns === 2, 'it took another turn')
  loop.wake()
  await until(() => turns === 3, 'and another')
})

test('that cannot go on says so once, tries again, and says when it can', async () => {
  let turns = 0
  const { lines } = useLoop(async () => {
    if (++turns <= 3) throw new Error('no database')
    return false
  })
  await until(() => turns === 4, 'it took a turn that did not fail')
  await until(() => lines.length === 2, 'it says so')
  expect(lines).toEqual(['Job loop failed, retrying', 'Job loop recovered'])
})

test('that is refused as overloaded tries again soon, however often', async () => {
  let turns = 0
  const runOnce = async () => {
    if (++turns <= 8) throw overloaded('The database is busy: try again shortly')
    return false
  }
  // Pauses that grow as in an outage would take more than a minute together, these take 2 s at
  // most.
  useLoop(runOnce, { maxBackoffMs: 600_000 })
  await until(() => turns === 9, 'it took a turn that did not fail')
})

test('ends with the turn that it takes', async () => {
  let ended = false
  const { loop } = useLoop(async () => {
    await new Promise((resolve) => setImmediate(resolve))
    ended = true
    return true
  })
  await loop.stop()
  expect(ended).toBe(true)
})
