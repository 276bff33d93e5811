import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { type AddressInfo, connect as connectTcp } from 'node:net'
import { z } from '@hono/zod-openapi'
import { io, type Socket } from 'socket.io-client'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import type { ServerEvents } from '../../src/feature.ts'
import { event } from '../../src/realtime/event.ts'
import { type Acknowledgement, type ClientEvents, Realtime } from '../../src/realtime/realtime.ts'
import { type fixtureFeatures, startFixture, useFixture } from '../support/fixture/features.ts'
import type { ItemChange } from '../support/fixture/items.ts'
import { request } from '../support/service.ts'
import { until } from '../support/until.ts'

type Client = Socket<ServerEvents<typeof fixtureFeatures>, ClientEvents>

const KIB = 1024
const ACK_TIMEOUT_MS = 30_000

let service: Awaited<ReturnType<typeof startFixture>>
let items: string
let names = 0

beforeAll(async () => {
  service = await startFixture({ CORS_ORIGINS: 'https://shop.example' })
  items = `${service.url}/v1/items`
})
afterAll(() => service.close())

describe('subscribing', () => {
  test('is acknowledged', async () => {
    const client = await connect()
    expect(await subscribe(client, 'items')).toEqual({ ok: true })
    expect(await subscribe(client, 'items')).toEqual({ ok: true })
    expect(await unsubscribe(client, 'items')).toEqual({ ok: true })
    expect(await unsubscribe(client, 'items')).toEqual({ ok: true })
  })

  test.each(['prices', 'items ', 'ITEMS', '__proto__', ''])(
    'to %j is refused: there is no such topic',
    async (topic) => {
      const client = await connect()
      const refusal = { ok: false, code: 'not_found', message: `There is no topic ${topic}` }
      expect(await subscribe(client, topic)).toEqual(refusal)
      expect(await unsubscribe(client, topic)).toEqual(refusal)
    },
  )

  test.each([
    ['a number', 7],
    ['null', null],
    ['a list', ['items']],
    ['an object', { toString: 'items', length: 3 }],
    ['bytes', Buffer.from('items')],
    ['a text that is too long', 'x'.repeat(101)],
  ])('to %s is refused', async (_, topic) => {
    const client = await connect()
    const refusal = {
      ok: false,
      code: 'invalid',
      message: 'A topic is a string of at most 100 characters',
    }
    expect(await subscribe(client, topic)).toEqual(refusal)
    expect(await unsubscribe(client, topic)).toEqual(refusal)
  })

  test('to nothing is refused too', async () => {
    const client = untyped(await connect())
    expect(await client.emitWithAck('subscribe')).toMatchObject({
      ok: false,
      code: 'invalid',
    })
    expect(await client.emitWithAck('unsubscribe')).toMatchObject({
      ok: false,
      code: 'invalid',
    })
  })

  test('to a topic in capitals is to the same topic, where its pattern takes any case', async () => {
    const { realtime, url } = await openRealtime([/^thing:[a-f]+$/i, /^Case:\d$/])
    const client = await connect(url)
    expect(await subscribe(client, 'THING:ABC')).toEqual({ ok: true })
    expect(await subscribe(client, 'Case:1')).toEqual({ ok: true })
    expect(realtime.subscribed(/:/)).toEqual(['thing:abc', 'Case:1'])
    expect(await unsubscribe(client, 'Thing:abc')).toEqual({ ok: true })
    expect(realtime.subscribed(/:/)).toEqual(['Case:1'])
  })

  test('to more than 100 topics is refused, until one is left', async () => {
    const { url } = await openRealtime([/^thing:\d+$/])
    const client = await connect(url)
    for (let index = 0; index < 100; index++)
      expect(await subscribe(client, `thing:${index}`)).toEqual({ ok: true })
    expect(await subscribe(client, 'thing:100')).toEqual({
      ok: false,
      code: 'too_many',
      message: 'A client may subscribe to at most 100 topics: unsubscribe from one first',
    })
    expect(await subscribe(client, 'thing:99')).toEqual({ ok: true })
    expect(await unsubscribe(client, 'thing:99')).toEqual({ ok: true })
    expect(await subscribe(client, 'thing:100')).toEqual({ ok: true })
    expect(await subscribe(await connect(url), 'thing:101')).toEqual({ ok: true })
  })

  test('works without an acknowledgement', async () => {
    const client = await connect()
    const heard = listen(client)
    client.emit('subscribe', 'items')
    client.emit('subscribe', 'items', 'not a function' as never)
    await flush(client)
    const { id } = await create()
    await until(() => heard.some((change) => change.id === id), 'the change arrives')
  })
})

describe('item.changed', () => {
  test('tells subscribers of what is created, changed and deleted', async () => {
    const heard = listen(await connectTo('items'))
    const { id } = await create()
    await request(`${items}/${id}`, 'PATCH', { stock: 4 })
    await request(`${items}/${id}`, 'DELETE')
    await until(() => heard.length >= 3, 'three changes arrive')
    expect(heard).toEqual([
      { id, version: 1, change: 'created' },
      { id, version: 2, change: 'updated' },
      { id, version: 3, change: 'deleted' },
    ])
  })

  test('is for subscribers only, and for those who left no more', async () => {
    const [subscriber, stranger, leaver] = [
      await connectTo('items'),
      await connect(),
      await connectTo('items'),
    ]
    const [heard, ofStranger, ofLeaver] = [listen(subscriber), listen(stranger), listen(leaver)]
    const first = await create()
    await unsubscribe(leaver, 'items')
    const second = await create()
    await Promise.all([subscriber, stranger, leaver].map(flush))
    expect(heard.map(({ id }) => id)).toEqual([first.id, second.id])
    expect(ofLeaver.map(({ id }) => id)).toEqual([first.id])
    expect(ofStranger).toEqual([])
  })

  test('comes once to a client that subscribed twice', async () => {
    const client = await connectTo('items')
    await subscribe(client, 'items')
    const heard = listen(client)
    await create()
    await flush(client)
    expect(heard.length).toBe(1)
  })

  test('comes after the commit: who reads upon it sees the version it names', async () => {
    const client = await connectTo('items')
    const reads: Promise<[ItemChange, number, number | undefined]>[] = []
    client.on('item.changed', (change) => {
      reads.push(
        request(`${items}/${change.id}`).then(({ status, body }) => [change, status, body.version]),
      )
    })
    const { id } = await create()
    for (let stock = 0; stock < 20; stock++) {
      await request(`${items}/${id}`, 'PATCH', { stock })
      await until(() => reads.length === stock + 2, 'the change arrives')
      await reads.at(-1)
    }
    await request(`${items}/${id}`, 'DELETE')
    await until(() => reads.length === 22, 'the deletion arrives')
    for (const [{ version, change }, status, seen] of await Promise.all(reads))
      expect([version, status, seen]).toEqual(
        change === 'deleted' ? [22, 404, undefined] : [version, 200, version],
      )
  })

  test('is not sent for a change that is refused', async () => {
    const client = await connectTo('items')
    const [{ name }, { id }] = [await create(), await create()]
    const heard = listen(client)
    const refusals = [
      await request(items, 'POST', { name, price: '1.00', stock: 1 }),
      await request(items, 'POST', { name: '' }),
      await request(`${items}/${id}`, 'PATCH', { name }),
      await request(`${items}/${id}`, 'PATCH', { stock: 1 }, { 'if-match': '"7"' }),
      await request(`${items}/${id}`, 'DELETE', undefined, { 'if-match': '"7"' }),
      await request(`${items}/999999`, 'DELETE'),
    ]
    expect(refusals.map(({ status }) => status)).toEqual([409, 422, 409, 412, 412, 404])
    await flush(client)
    expect(heard).toEqual([])
  })
})

describe('a connection', () => {
  test('is a websocket: polling is refused', async () => {
    expect(await connectionError({ transports: ['polling'] })).toBeInstanceOf(Error)
    const response = await fetch(`${service.url}/socket.io/?EIO=4&transport=polling`)
    expect([response.status, await response.json()]).toEqual([
      400,
      { code: 0, message: 'Transport unknown' },
    ])
  })

  test('is not a matter of the app, which does not see what Socket.IO answers', async () => {
    const unanswered = async () =>
      (await (await fetch(`${service.opsUrl}/metrics`)).text()).match(/^http_.*_count{.*"404".*/gm)
    const before = await unanswered()
    await fetch(`${service.url}/socket.io/?EIO=4&transport=polling`)
    expect(await unanswered()).toEqual(before)
  })

  test.each([
    'https://evil.example',
    'https://shop.example.evil.example',
    'http://shop.example',
    'https://shop.example:8443',
    'http://localhost:1',
    'null',
    'chrome-extension://abcdefghijklmnop',
    'file://',
    'nonsense',
  ])('is refused to pages from %s', async (origin) => {
    expect(await connectionError({ extraHeaders: { origin } })).toBeInstanceOf(Error)
  })

  test('is open to our own pages, to those of CORS_ORIGINS and to what is no page', async () => {
    for (const extraHeaders of [{ origin: service.url }, { origin: 'https://shop.example' }, {}])
      expect((await connect(service.url, { extraHeaders })).connected).toBe(true)
  })

  test.each([
    ['https://shop.test', 'shop.test:443'],
    ['https://shop.test', 'Shop.Test'],
    ['http://shop.test', 'shop.test:80'],
    ['HTTPS://SHOP.test:443', 'shop.test'],
    ['https://[2001:db8::1]', '[2001:DB8:0::1]:443'],
    ['https://xn--bcher-kva.test', 'xn--bcher-kva.test'],
    ['https://shop.test.', 'shop.test.'],
    ['HTTPS://Shop.Example:443', 'elsewhere.test'],
  ])('is open to pages from %s where Host is %s: it is the same origin', async (origin, host) => {
    expect((await connect(service.url, { extraHeaders: { origin, host } })).connected).toBe(true)
  })

  test.each([
    ['https://shop.test', 'shop.test:80'],
    ['http://shop.test', 'shop.test:443'],
    ['https://shop.test:8443', 'shop.test'],
    ['https://shop.test', 'shop.test.'],
    ['https://shop.test', 'shop.test@evil.test'],
    ['https://shop.test', 'evil.test/shop.test'],
  ])('is refused to pages from %s where Host is %s', async (origin, host) => {
    expect(await connectionError({ extraHeaders: { origin, host } })).toBeInstanceOf(Error)
  })

  test('ends with a message above 16 KiB, its own alone', async () => {
    const [sender, other] = [await connect(), await connectTo('items')]
    expect(await subscribe(sender, 'x'.repeat(15 * KIB))).toMatchObject({ code: 'invalid' })
    sender.emit('subscribe', 'x'.repeat(17 * KIB))
    await until(() => sender.disconnected, 'the sender is disconnected')
    const heard = listen(other)
    await create()
    await until(() => heard.length === 1, 'the other hears of changes')
  })

  test.each([
    ['text that is no packet', ['garbage']],
    ['an unknown packet type', ['49[]']],
    ['an event that is no list', ['42{"a":1}']],
    ['an event without a name', ['42[]']],
    ['an event whose name is an object', ['42[{"a":1}]']],
    ['broken JSON', ['42["subscribe",']],
    ['a reserved event', ['42["disconnect"]', '42["connect"]', '42["disconnecting"]']],
    ['an unknown event', ['42["constructor","items"]', '42["__proto__"]']],
    ['an acknowledgement that nobody asked for', ['4399[]', '43["x"]']],
    ['bytes that were not announced', [new Uint8Array([1, 2, 3])]],
    [
      'bytes that do not come',
      ['451-["subscribe",{"_placeholder":true,"num":9}]', new Uint8Array([1])],
    ],
    ['a namespace that does not exist', ['40/admin,{}', '42/admin,["subscribe","items"]']],
    ['a second handshake', ['40', '40{"sid":"x"}']],
    ['a close and more', ['1', '42["subscribe","items"]']],
  ] as [string, (string | Uint8Array)[]][])(
    'survives, or ends with, %s; the server goes on',
    async (_, messages) => {
      const raw = new WebSocket(
        `${service.url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket`,
      )
      onTestFinished(() => raw.close())
      const heard: string[] = []
      raw.addEventListener('message', ({ data }) => heard.push(String(data)))
      await new Promise((resolve) => raw.addEventListener('open', resolve))
      raw.send('40')
      await until(() => heard.some((message) => message.startsWith('40')), 'the handshake is done')
      for (const message of messages) raw.send(message as string)
      raw.send('427["subscribe","items"]')
      await until(
        () => raw.readyState === WebSocket.CLOSED || heard.includes('437[{"ok":true}]'),
        'it is closed or served',
      )
      expect(await subscribe(await connect(), 'items')).toEqual({ ok: true })
    },
  )
})

describe('a reader that stops reading', () => {
  const filled = event('test.filled', {
    topic: 'load',
    when: 'Now',
    payload: z.object({ place: z.int(), text: z.string() }),
  })
  const text = 'x'.repeat(64 * KIB)

  test('is disconnected when 1 MiB waits for it, and others miss nothing', async () => {
    const { realtime, url } = await openRealtime()
    const slow = await connectStalled(url, 'load')
    const reader = untyped(await connectTo('load', url))
    const places: number[] = []
    reader.on('test.filled', ({ place }) => places.push(place))

    let sent = 0
    for (; realtime.connections === 2; sent++) {
      // The kernel takes some megabytes before anything waits in this process.
      expect(sent).toBeLessThan(1_000)
      realtime.emit('load', filled, { place: sent, text })
      await until(() => places.length > sent, 'the reader has it')
    }
    expect(sent * text.length).toBeGreaterThan(1024 * KIB)
    slow.resume()
    await once(slow, 'close')
    realtime.emit('load', filled, { place: sent, text })
    await until(() => places.length > sent, 'the reader has the last one')
    expect(places).toEqual(Array.from({ length: sent + 1 }, (_, place) => place))
  })
})

describe('the latest value', () => {
  const changed = event('test.changed', {
    topic: 'load',
    when: 'Now',
    payload: z.object({ place: z.int(), text: z.string() }),
  })

  test('of several at the same moment reaches who reads', async () => {
    const { realtime, url } = await openRealtime()
    const reader = untyped(await connectTo('load', url))
    const places: number[] = []
    reader.on('test.changed', ({ place }) => places.push(place))
    for (let place = 0; place < 3; place++)
      realtime.emitLatest('load', changed, { place, text: '' })
    await until(() => places.length === 3, 'all arrive')
    expect(places).toEqual([0, 1, 2])
  })

  test('is not kept for who reads nothing, and others miss nothing', async () => {
    const { realtime, url } = await openRealtime()
    const slow = await connectStalled(url, 'load')
    const reader = untyped(await connectTo('load', url))
    const places: number[] = []
    reader.on('test.changed', ({ place }) => places.push(place))
    const text = 'x'.repeat(64 * KIB)
    // 64 MiB are more than the kernel and this process would keep.
    for (let place = 0; place < 1_000; place++) {
      realtime.emitLatest('load', changed, { place, text })
      await until(() => places.length > place, 'the reader has it')
    }
    expect(realtime.connections).toBe(2)
    expect(places).toEqual(Array.from({ length: 1_000 }, (_, place) => place))
    slow.destroy()
  })
})

describe('when the service stops', () => {
  test('clients hear of it and are disconnected', async () => {
    const { url, stop } = await useFixture()
    const clients = [await connect(url), await connectTo('items', url)]
    const heard = clients.map((client) => {
      const events: string[] = []
      client.on('server.stopping', () => events.push('server.stopping'))
      client.on('disconnect', () => events.push('disconnect'))
      return events
    })
    await stop()
    await until(() => clients.every(({ disconnected }) => disconnected), 'all are disconnected')
    for (const events of heard) expect(events).toEqual(['server.stopping', 'disconnect'])
    expect(await connectionError({}, url)).toBeInstanceOf(Error)
  })

  test('a client that answers nothing does not hold it up', async () => {
    const { url, stop } = await useFixture({ DRAIN_TIMEOUT_MS: '60000' })
    const stalled = await connectStalled(url, 'items')
    await stop()
    stalled.resume()
    await once(stalled, 'close')
  })
})

interface Options {
  transports?: string[]
  extraHeaders?: Record<string, string>
}

function open(url: string, options: Options): Client {
  const client: Client = io(url, {
    transports: ['websocket'],
    reconnection: false,
    forceNew: true,
    ...options,
  })
  onTestFinished(() => void client.close())
  return client
}

async function connect(url = service.url, options: Options = {}): Promise<Client> {
  const client = open(url, options)
  await new Promise<void>((resolve, reject) =>
    client.once('connect', resolve).once('connect_error', reject),
  )
  return client
}

/** A client that has subscribed. */
async function connectTo(topic: string, url = service.url): Promise<Client> {
  const client = await connect(url)
  expect(await subscribe(client, topic)).toEqual({ ok: true })
  return client
}

const connectionError = (options: Options, url = service.url): Promise<Error | undefined> =>
  connect(url, options).then(
    () => undefined,
    (error) => error,
  )

const subscribe = (client: Client, topic: unknown): Promise<Acknowledgement> =>
  client.timeout(ACK_TIMEOUT_MS).emitWithAck('subscribe', topic as string)

const unsubscribe = (client: Client, topic: unknown): Promise<Acknowledgement> =>
  client.timeout(ACK_TIMEOUT_MS).emitWithAck('unsubscribe', topic as string)

/** A round trip: what the server sent before has arrived. */
const flush = (client: Client) => subscribe(client, 'no such topic')

/** For what no typed client would send or hear. */
const untyped = (client: Client) => client as unknown as Socket

function listen(client: Client): ItemChange[] {
  const heard: ItemChange[] = []
  client.on('item.changed', (change) => heard.push(change))
  return heard
}

const create = async (): Promise<{ id: number; name: string }> =>
  (await request(items, 'POST', { name: `Lantern ${++names}`, price: '9.00', stock: 1 })).body

/** Realtime alone, with a topic that carries what a test likes. */
async function openRealtime(names: (string | RegExp)[] = ['load']) {
  const topics = names.map((name) => ({ name, access: 'public' as const }))
  const server = createServer()
  const realtime = new Realtime({ server, topics, corsOrigins: [] })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(async () => {
    await realtime[Symbol.asyncDispose]()
    server.close()
  })
  return { realtime, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
}

/** A client that subscribes and then reads nothing more, as no library lets a client do. */
async function connectStalled(url: string, topic: string) {
  const { hostname, host, port } = new URL(url)
  const socket = connectTcp(Number(port), hostname)
  onTestFinished(() => void socket.destroy())
  socket.on('error', () => {})
  let heard = ''
  socket.on('data', (chunk) => {
    heard += chunk.toString('latin1')
  })
  const hears = (text: string) => until(() => heard.includes(text), `the server says ${text}`)
  socket.write(
    [
      'GET /socket.io/?EIO=4&transport=websocket HTTP/1.1',
      `Host: ${host}`,
      'Connection: Upgrade',
      'Upgrade: websocket',
      'Sec-WebSocket-Version: 13',
      `Sec-WebSocket-Key: ${randomBytes(16).toString('base64')}`,
      '\r\n',
    ].join('\r\n'),
  )
  await hears('0{"sid"')
  socket.write(textFrame('40'))
  await hears('40{"sid"')
  socket.write(textFrame(`420["subscribe","${topic}"]`))
  await hears('430[{"ok":true}]')
  socket.pause()
  return socket
}

/** A short text in one frame; clients must mask theirs, and a mask of zeros leaves it readable. */
const textFrame = (text: string) =>
  Buffer.concat([Buffer.from([0x81, 0x80 | text.length, 0, 0, 0, 0]), Buffer.from(text)])
