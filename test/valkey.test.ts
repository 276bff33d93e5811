import { setImmediate } from 'node:timers/promises'
import { pino } from 'pino'
import { describe, expect, onTestFinished, test } from 'vitest'
import { blockEventLoop } from '../packages/workpool/test/support/pool.ts'
import { findFreePort } from '../scripts/database/private-server.ts'
import { Valkey } from '../src/valkey.ts'
import { until } from './support/until.ts'
import { hasValkey, useValkey } from './support/valkey.ts'

/** How long the loss of a server goes unnoticed, and how long its return. */
const NOTICED_MS = 5_000
const HEALED_MS = 5_000

describe.runIf(hasValkey)('signals', () => {
  test('reach all processes in their order, the sender included', async () => {
    const { url } = await useValkey()
    const [one, other] = [await useConnected(url), await useConnected(url)]
    const heard = [one, other].map((valkey) => listen(valkey, 'numbers'))
    await Promise.all([one.subscribed(), other.subscribed()])
    const numbers = Array.from({ length: 1_000 }, (_, number) => number)
    for (const number of numbers) one.publish('numbers', { number })
    await until(() => heard.every(({ length }) => length === 1_000), 'all have arrived')
    for (const messages of heard) expect(messages).toEqual(numbers.map((number) => ({ number })))
  })

  test('come no more to who has unsubscribed, as long as others listen or not', async () => {
    const { url } = await useValkey()
    const valkey = await useConnected(url)
    const heard: unknown[] = []
    const stops = [1, 2].map((listener) => valkey.subscribe('a', () => void heard.push(listener)))
    for (const stop of stops) {
      stop()
      valkey.publish('a', 'x')
      await marked(valkey)
    }
    expect(heard).toEqual([2])
    expect(await valkey.commands.pubsub('CHANNELS', 'offloop:a')).toEqual([])
  })

  test('that are no JSON, or that a listener fails to handle, end nothing and are logged', async () => {
    const { url } = await useValkey()
    const lines: string[] = []
    const valkey = await useConnected(url, lines)
    valkey.subscribe('a', () => {
      throw new Error('It fails')
    })
    const heard = listen(valkey, 'b')
    await valkey.subscribed()
    await valkey.commands.publish('offloop:b', '{')
    valkey.publish('a', 1)
    valkey.publish('b', 2)
    await until(() => heard.length > 0, 'the last one arrives')
    expect(heard).toEqual([2])
    expect(lines.filter((line) => line.includes('Cannot handle a signal'))).toHaveLength(2)
  })
})

test.runIf(hasValkey)('a blocked event loop is no failure of Valkey', async () => {
  const { url } = await useValkey()
  const lines: string[] = []
  const valkey = await useConnected(url, lines)
  await setImmediate()
  // Timers come next, before the answer is read.
  valkey.publish('a', 1)
  blockEventLoop(500)
  await marked(valkey)
  expect(lines).toEqual([])
})

describe.runIf(hasValkey)('a Valkey that fails', () => {
  test.each([
    ['is killed', 'SIGKILL', undefined],
    ['hangs', 'SIGSTOP', 'SIGCONT'],
    ['hangs and is replaced', 'SIGSTOP', undefined],
  ] as const)('and %s is noticed, and its return within 5 s', async (_, fail, heal) => {
    const { url, send, restart } = await useValkey()
    const lines: string[] = []
    const [valkey, other] = [await useConnected(url, lines), await useConnected(url)]
    const heard = listen(valkey, 'a')
    const gaps: string[] = []
    valkey.onGap(() => gaps.push('gap'))
    await valkey.subscribed()

    send(fail)
    await until(() => !valkey.isReady && !other.isReady, 'both notice it', NOTICED_MS)
    // Neither is known to Valkey before it is back.
    const late = listen(valkey, 'late')
    for (let count = 0; count < 10_000; count++) valkey.publish('a', count)
    await valkey.subscribed()
    expect(gaps).toEqual([])

    if (heal) send(heal)
    else await restart()
    await until(() => gaps.length > 0 && valkey.isReady && other.isReady, 'it is back', HEALED_MS)
    other.publish('a', 'first')
    other.publish('late', 'second')
    await until(() => late.length > 0, 'signals arrive')
    expect(heard).toEqual(['first'])
    expect(late).toEqual(['second'])
    expect(lines.length).toBeLessThan(8)
  })

  test('and is there only after the process has begun is found', async () => {
    const port = await findFreePort()
    const valkey = open(`redis://127.0.0.1:${port}`)
    const heard = listen(valkey, 'a')
    const gaps = listen(valkey, 'gaps')
    await valkey.subscribed()
    expect(valkey.isReady).toBe(false)
    await useValkey(port)
    await until(() => gaps.length > 0 && valkey.isReady, 'it is found', HEALED_MS)
    valkey.publish('a', 1)
    await until(() => heard.length > 0, 'a signal arrives')
  })

  test('for the process that sends tells those that miss what it sent', async () => {
    const { url } = await useValkey()
    const [sender, receiver] = [await useConnected(url), await useConnected(url)]
    const gaps = listen(receiver, 'gaps')
    await receiver.subscribed()
    sender.commands.disconnect(true)
    sender.publish('a', 'lost')
    await until(() => gaps.length > 0, 'the receiver knows')
  })
})

function open(url: string, lines: string[] = []) {
  const valkey = new Valkey(url, pino({}, { write: (line) => void lines.push(line) }))
  onTestFinished(() => valkey[Symbol.dispose]())
  return valkey
}

async function useConnected(url: string, lines?: string[]) {
  const valkey = open(url, lines)
  await until(() => valkey.isReady, 'it is connected')
  return valkey
}

function listen(valkey: Valkey, channel: string): unknown[] {
  const heard: unknown[] = []
  valkey.subscribe(channel, (message) => void heard.push(message))
  return heard
}

/** Resolves once all earlier signals have arrived. */
async function marked(valkey: Valkey) {
  const heard = listen(valkey, 'mark')
  await valkey.subscribed()
  valkey.publish('mark', null)
  await until(() => heard.length > 0, 'the mark arrives')
}
