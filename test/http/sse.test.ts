import { once } from 'node:events'
import { createServer } from 'node:http'
import { expect, onTestFinished, test } from 'vitest'
import { getContext, requestContext } from '../../src/http/context.ts'
import { createRouter } from '../../src/http/router.ts'
import { HttpServer } from '../../src/http/server.ts'
import { type EventSink, eventStream, hasSeenLast } from '../../src/http/sse.ts'
import { Realtime } from '../../src/realtime/realtime.ts'
import { OPERATOR } from '../support/operator.ts'
import { connectTo, sendRaw } from '../support/raw-http.ts'
import { until } from '../support/until.ts'

/** A route whose events the test sends, and who subscribes to them at the moment. */
async function serve(subject = OPERATOR, heartbeatMs?: number) {
  const sinks = new Set<EventSink>()
  const sent: EventSink[] = []
  const realtime = new Realtime({ server: createServer(), topics: [], corsOrigins: [] })
  onTestFinished(() => realtime[Symbol.asyncDispose]())
  const app = createRouter()
  app.use(requestContext(1_000, () => {}))
  app.use((c, next) => {
    getContext(c).subject = subject
    return next()
  })
  app.get('/', (c) => {
    if (hasSeenLast(c)) return c.body(null, 204)
    const subscribe = (sink: EventSink) => {
      sinks.add(sink)
      sent.push(sink)
      return () => sinks.delete(sink)
    }
    const deps = { stopping: new AbortController().signal, realtime }
    return eventStream(c, deps, subscribe, heartbeatMs)
  })
  const server = new HttpServer({ leaving: new AbortController().signal })
  const url = await server.listen(app, '127.0.0.1', 0)
  onTestFinished(() => server[Symbol.asyncDispose]())
  return { url, sinks, sent, realtime }
}

const ask = (method: string, headers = '') =>
  `${method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n${headers}\r\n`

test('HEAD is answered with the headers of the stream, and subscribes to nothing', async () => {
  const { url, sent } = await serve()
  const { status, head, body } = await sendRaw(url, ask('HEAD'))
  expect([status, body]).toEqual([200, ''])
  expect(head.toLowerCase()).toContain('content-type: text/event-stream')
  expect(sent).toEqual([])
})

test('a client that leaves ends its subscription, and what is sent to it after that is dropped', async () => {
  const { url, sinks, sent } = await serve()
  const socket = await connectTo(url)
  socket.write(ask('GET'))
  await once(socket, 'data')
  expect(sinks.size).toBe(1)
  socket.destroy()
  await until(() => sinks.size === 0, 'the subscription has ended')
  expect(() => sent[0]?.latest('a', 1)).not.toThrow()
  expect(() => sent[0]?.last('b', 2)).not.toThrow()
})

test('the last event ends the stream, what is sent after it is dropped, and its id alone stops a client that reconnects', async () => {
  const { url, sinks, sent } = await serve()
  const answer = sendRaw(url, ask('GET'))
  await until(() => sent[0], 'the client has subscribed')
  sent[0]?.latest('progress', 1)
  sent[0]?.last('finished', 2)
  sent[0]?.latest('progress', 3)
  sent[0]?.last('finished', 4)
  const { text } = await answer
  expect(text).toContain('event: progress\ndata: 1\n\n')
  expect(text).toContain('event: finished\ndata: 2\n\n')
  expect(text).not.toMatch(/data: [34]/)
  expect(sinks.size).toBe(0)
  const ids = [...text.matchAll(/^id: (.*)\nevent: (.*)$/gm)]
  expect(ids.map(([, , event]) => event)).toEqual(['finished'])
  expect((await sendRaw(url, ask('GET', `Last-Event-ID: ${ids[0]?.[1]}\r\n`))).status).toBe(204)
})

test('a session or API key that is revoked ends the streams of its client, and no others', async () => {
  const { url, sinks, realtime } = await serve()
  const answer = sendRaw(url, ask('GET'))
  await until(() => sinks.size === 1, 'the client has subscribed')
  expect(realtime.subjects).toEqual([OPERATOR])
  realtime.disconnect('another')
  expect(sinks.size).toBe(1)
  realtime.disconnect(OPERATOR.credential.id)
  expect((await answer).status).toBe(200)
  expect([sinks.size, realtime.subjects]).toEqual([0, []])
})

test('a session that expires ends the streams of its client', async () => {
  const { url, sinks } = await serve({ ...OPERATOR, expiresAt: Date.now() + 100 })
  expect((await sendRaw(url, ask('GET'))).status).toBe(200)
  expect(sinks.size).toBe(0)
})

test('a client that never reads is disconnected, and one that reads is not', async () => {
  const { url, sinks, sent } = await serve(OPERATOR, 20)
  const [deaf, reader] = [await connectTo(url), await connectTo(url)]
  onTestFinished(() => void reader.destroy())
  for (const socket of [deaf, reader]) socket.on('error', () => {}).write(ask('GET'))
  deaf.pause()
  reader.resume()
  await until(() => sinks.size === 2, 'both have subscribed')
  const payload = 'x'.repeat(1024 ** 2)
  await until(() => {
    for (const sink of sinks) sink.latest('progress', payload)
    return sinks.size === 1
  }, 'one is left')
  expect(reader.destroyed).toBe(false)
  const [left] = sinks
  left?.last('finished', 1)
  await once(reader, 'end')
  expect(sent).toHaveLength(2)
})
