import { pino } from 'pino'
import { describe, expect, onTestFinished, test } from 'vitest'
import { blockEventLoop } from '../../packages/workpool/test/support/pool.ts'
import { findFreePort } from '../../scripts/database/private-server.ts'
import { LIMITS, RateLimits } from '../../src/access/limits.ts'
import { SharedCounters } from '../../src/access/shared-counters.ts'
import { Valkey } from '../../src/valkey.ts'
import { until } from '../support/until.ts'
import { hasValkey, useValkey } from '../support/valkey.ts'

const CLIENT = '192.0.2.1'

describe.runIf(hasValkey)('processes that share a Valkey', () => {
  test('count together', async () => {
    const { url } = await useValkey()
    const [one, other] = [await useLimits(url), await useLimits(url)]
    for (let count = 0; count < LIMITS.guess.points; count++)
      await (count % 2 ? one : other).guess()
    await expect(one.guess()).rejects.toMatchObject({ code: 'rate_limited' })
    await expect(other.guess()).rejects.toMatchObject({ code: 'rate_limited' })
  })

  test('forget together', async () => {
    const { url } = await useValkey()
    const [one, other] = [await useLimits(url), await useLimits(url)]
    for (let count = 1; count < LIMITS.guess.points; count++) await one.guess()
    const forget = await one.guess()
    forget()
    await until(() => other.guess().then(Boolean, () => false), 'another may try again')
  })

  test('count together though the event loop was blocked', async () => {
    const { url } = await useValkey()
    const { shared, lines } = await useLimits(url)
    const usage = shared.add('read', CLIENT)
    blockEventLoop(500)
    expect(await usage).toMatchObject({ count: 1 })
    expect(lines).toEqual([])
  })

  test('let requests pass while it fails, count for themselves, and say so once', async () => {
    const { url, send } = await useValkey()
    const { guess, lines } = await useLimits(url)
    send('SIGSTOP')
    for (let count = 0; count < LIMITS.guess.points; count++) await guess()
    await expect(guess()).rejects.toMatchObject({ code: 'rate_limited' })
    expect(lines.filter((line) => line.includes('Valkey fails'))).toHaveLength(1)
    send('SIGCONT')
  })
})

test('a Valkey that is not there lets requests pass', async () => {
  const { guess, lines } = await useLimits(`redis://127.0.0.1:${await findFreePort()}`, false)
  await guess()
  await until(() => lines.some((line) => line.includes('Valkey fails')), 'the log says so')
})

async function useLimits(url: string, isThere = true) {
  const lines: string[] = []
  const valkey = new Valkey(url, pino({}, { write: (line) => void lines.push(line) }))
  onTestFinished(() => valkey[Symbol.dispose]())
  const shared = new SharedCounters(valkey)
  if (isThere) await until(() => shared.add('read', 'ready'), 'it is connected')
  const limits = new RateLimits({ unlimited: 'none', shared })
  return { lines, shared, guess: () => limits.countGuess('a@example.com', CLIENT, true) }
}
