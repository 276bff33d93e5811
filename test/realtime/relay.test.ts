import { z } from '@hono/zod-openapi'
import { pino } from 'pino'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { event } from '../../src/realtime/event.ts'
import { Realtime } from '../../src/realtime/realtime.ts'
import { Relay } from '../../src/realtime/relay.ts'
import { Valkey } from '../../src/valkey.ts'
import { until } from '../support/until.ts'
import { hasValkey, useValkey } from '../support/valkey.ts'

const TOPIC = 'numbers'
const numbered = event('number', { topic: TOPIC, when: 'Now', payload: z.object({ n: z.int() }) })

describe.runIf(hasValkey)('an event', () => {
  test('reaches subscribers in every process once, in order', async () => {
    const { url } = await useValkey()
    const [one, two, three] = [await usePeer(url), await usePeer(url), await usePeer(url)]
    const heard = [one, two, three].map(({ listen }) => listen())
    await Promise.all([one, two, three].map(({ following }) => following()))
    const numbers = Array.from({ length: 500 }, (_, n) => n)
    for (const n of numbers) one.realtime.emit(TOPIC, numbered, { n })
    await until(() => heard.every(({ length }) => length >= 500), 'all have them')
    for (const received of heard) expect(received).toEqual(numbers)
  })

  test('goes to no process without subscribers of its own', async () => {
    const { url } = await useValkey()
    const [one, two] = [await usePeer(url), await usePeer(url)]
    await one.following()
    expect(await channels(one)).toEqual([])
    const stop = two.realtime.listen(TOPIC, () => {})
    await two.following()
    expect(await channels(one)).toEqual(['offloop:events:numbers'])
    stop()
    await two.following()
    expect(await channels(one)).toEqual([])
  })

  test('that only concerns this process stays in it', async () => {
    const { url } = await useValkey()
    const [one, two] = [await usePeer(url), await usePeer(url)]
    const [here, there] = [one.listen(), two.listen()]
    await until(() => one.knows(), 'one knows of the other')
    one.realtime.emit(TOPIC, numbered, { n: 1 }, 'local')
    one.realtime.emitLatest(TOPIC, numbered, { n: 2 }, 'local')
    one.realtime.emitLatest(TOPIC, numbered, { n: 3 })
    await until(() => there.length > 0, 'the last one arrives')
    expect([here, there]).toEqual([[1, 2, 3], [3]])
  })

  test('of another process is told from one of our own', async () => {
    const { url } = await useValkey()
    const [one, two] = [await usePeer(url), await usePeer(url)]
    const heard = two.listen()
    await two.following()
    const relayed: unknown[] = []
    two.realtime.onRelayed(({ topic, name, payload }) => relayed.push([topic, name, payload]))
    two.realtime.emit(TOPIC, numbered, { n: 1 })
    one.realtime.emit(TOPIC, numbered, { n: 2 })
    await until(() => heard.length === 2, 'both have arrived')
    expect(relayed).toEqual([[TOPIC, 'number', { n: 2 }]])
  })
})

describe.runIf(hasValkey)('a process knows whether others have subscribers', () => {
  test('as soon as they do, and sends nothing latest before', async () => {
    const { url } = await useValkey()
    const [one, two] = [await usePeer(url, 'once'), await usePeer(url, 'once')]
    const published = two.record()
    expect(one.realtime.hasSubscribers(TOPIC)).toBe(false)
    one.realtime.emitLatest(TOPIC, numbered, { n: 1 })
    const heard = two.listen()
    await until(() => one.knows(), 'it knows')
    one.realtime.emitLatest(TOPIC, numbered, { n: 2 })
    await until(() => heard.length > 0, 'it arrives')
    expect(heard).toEqual([2])
    expect(published).toEqual([2])
    expect(two.realtime.hasSubscribers('others')).toBe(false)
  })

  test('when it begins after them', async () => {
    const { url } = await useValkey()
    const before = await usePeer(url, 'once')
    before.listen()
    await before.following()
    const { knows } = await usePeer(url)
    await until(knows, 'it knows')
  })

  test('until they have none, or are gone', async () => {
    const { url } = await useValkey()
    const [one, two] = [await usePeer(url), await usePeer(url)]
    two.listen()
    await until(() => one.knows(), 'it knows')
    two.valkey[Symbol.dispose]()
    await until(() => !one.knows(), 'it forgets')
  })

  test('for all topics at once, if they have thousands', async () => {
    const { url } = await useValkey()
    const [one, two] = [await usePeer(url), await usePeer(url)]
    for (let n = 0; n <= 1_000; n++) two.realtime.listen(`number:${n}`, () => {})
    await until(() => one.realtime.hasSubscribers('number:1000'), 'it knows the last')
    await until(() => one.realtime.hasSubscribers('number:never'), 'it expects any')
  })
})

describe.runIf(hasValkey)('while Valkey fails', () => {
  test.each([
    ['killed', 'SIGKILL', undefined],
    ['hanging', 'SIGSTOP', 'SIGCONT'],
  ] as const)(
    '(%s) events go on here, and all heals and is said within 5 s',
    async (_, fail, heal) => {
      const { url, send, restart } = await useValkey()
      const [one, two] = [await usePeer(url), await usePeer(url)]
      const [here, there] = [one.listen(), two.listen()]
      await until(() => one.knows() && two.knows(), 'they know of each other')
      send(fail)
      await until(() => !one.valkey.isReady && !two.valkey.isReady, 'they notice')
      one.realtime.emit(TOPIC, numbered, { n: 1 })
      expect(here).toEqual([1])
      await until(() => !one.knows(), 'one counts on nobody')
      const late = two.listen('number:5')
      expect([one.resyncs(), two.resyncs()]).toEqual([0, 0])

      if (heal) send(heal)
      else await restart()
      await until(() => one.resyncs() > 0 && two.resyncs() > 0 && one.knows(), 'healed', 5_000)
      one.realtime.emit(TOPIC, numbered, { n: 2 })
      one.realtime.emitLatest('number:5', numbered, { n: 3 })
      await until(() => there.length + late.length > 1, 'they arrive')
      expect([here, there, late]).toEqual([[1, 2], [2], [3]])
    },
  )
})

test.runIf(hasValkey)('several gaps at once are asked about once', async () => {
  const { url } = await useValkey()
  const { valkey, following } = await usePeer(url)
  const asked: unknown[] = []
  valkey.subscribe('topics', (message) => {
    if ((message as { asks: boolean }).asks) asked.push(message)
  })
  await until(() => asked.length === 1, 'it has asked at its beginning')
  for (let gap = 0; gap < 20; gap++) valkey.publish('gaps', null)
  let heard = 0
  valkey.onGap(() => heard++)
  await until(() => heard >= 20, 'all have arrived')
  await until(() => asked.length > 1, 'it asks')
  await following()
  expect(asked).toHaveLength(2)
})

/**
 * What a process has for push, without clients of its own. One that announces a topic `once` does
 * not repeat it every two seconds.
 */
async function usePeer(url: string, announces: 'once' | 'repeatedly' = 'repeatedly') {
  const valkey = new Valkey(url, pino({ level: 'silent' }))
  onTestFinished(() => valkey[Symbol.dispose]())
  await until(() => valkey.isReady, 'it is connected')
  const relay = new Relay(valkey)
  let resyncs = 0
  const { open } = relay
  relay.open = (receiver) => {
    if (announces === 'once') vi.useFakeTimers({ toFake: ['setInterval'] })
    open.call(relay, { ...receiver, resync: () => void resyncs++ })
    vi.useRealTimers()
  }
  const topics = [TOPIC, /^number:\w+$/].map((name) => ({ name, access: 'public' as const }))
  const realtime = new Realtime({ topics, corsOrigins: [], relay })
  onTestFinished(async () => {
    relay[Symbol.dispose]()
    await realtime[Symbol.asyncDispose]()
  })
  return {
    valkey,
    realtime,
    resyncs: () => resyncs,
    following: () => relay.following(),
    knows: () => relay.hasSubscribers(TOPIC),
    listen(topic = TOPIC): number[] {
      const heard: number[] = []
      realtime.listen(topic, (_, payload) => heard.push((payload as { n: number }).n))
      return heard
    },
    /** What is published to the topic, whoever subscribes to it. */
    record(): number[] {
      const heard: number[] = []
      valkey.subscribe(`events:${TOPIC}`, (message) =>
        heard.push((message as { payload: { n: number } }).payload.n),
      )
      return heard
    },
  }
}

const channels = ({ valkey }: { valkey: Valkey }) =>
  valkey.commands.pubsub('CHANNELS', 'offloop:events:*')
