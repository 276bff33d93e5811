import { once } from 'node:events'
import type { Socket } from 'node:net'
import { connect } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { useFixture } from '../support/fixture/features.ts'
import { until } from '../support/until.ts'

const HANDSHAKE =
  'Upgrade: websocket\r\nConnection: Upgrade\r\n' +
  'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n'
const upgrade = (client: string) =>
  `GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: ${client}\r\n${HANDSHAKE}\r\n`
const slow = (client: string) =>
  `GET /v1/work?ms=60000 HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: ${client}\r\n\r\n`
const LIVE = 'GET /v1/items HTTP/1.1\r\nHost: a\r\n\r\n'

const useLimited = (env: NodeJS.ProcessEnv = {}) =>
  useFixture({ RATE_LIMITS: 'on', MAX_CLIENT_CONNECTIONS: '3', ...env })

test('a client gets no more connections than it may have, until it closes one', async () => {
  const { url } = await useLimited()
  const open = await Promise.all([1, 2, 3].map(() => ask(url, LIVE)))
  expect(open.map(({ status }) => status)).toEqual([200, 200, 200])
  expect((await ask(url, LIVE)).status).toBe('closed')
  open[0]?.socket.destroy()
  await until(async () => (await ask(url, LIVE)).status === 200, 'there is room again')
})

test.runIf(process.platform === 'linux')('one at its limit does not lock out others', async () => {
  const { url } = await useLimited()
  for (let count = 0; count < 3; count++) await ask(url, LIVE)
  expect((await ask(url, LIVE, '127.0.0.2')).status).toBe(200)
})

test('behind a proxy, its clients have requests and websockets instead of connections', async () => {
  const { url } = await useLimited({ TRUST_PROXY: '1', COMPUTE_THREADS: '1' })
  const websockets = [await ask(url, upgrade('192.0.2.1')), await ask(url, upgrade('192.0.2.1'))]
  expect(websockets.map(({ status }) => status)).toEqual([101, 101])
  const waiting = await send(url, slow('192.0.2.1'))
  await until(async () => (await ask(url, slow('192.0.2.1'))).status === 429, 'it counts')
  expect((await ask(url, upgrade('192.0.2.1'))).status).toBe(400)
  expect((await ask(url, upgrade('192.0.2.2'))).status).toBe(101)
  waiting.destroy()
  websockets[0]?.socket.destroy()
  await until(async () => (await ask(url, upgrade('192.0.2.1'))).status === 101, 'there is room')
})

/** Sends bytes on a connection of their own, which stays open until the test ends. */
async function send(url: string, bytes: string, localAddress?: string): Promise<Socket> {
  const { port } = new URL(url)
  const socket = connect({ port: Number(port), host: '127.0.0.1', localAddress })
  socket.on('error', () => {})
  onTestFinished(() => void socket.destroy())
  await once(socket, 'connect')
  socket.write(bytes)
  return socket
}

async function ask(url: string, bytes: string, localAddress?: string) {
  const socket = await send(url, bytes, localAddress)
  const [answer] = await Promise.race([once(socket, 'data'), once(socket, 'close')])
  const [, status] = String(answer).match(/^HTTP\/1\.1 (\d+)/) ?? []
  return { socket, status: status === undefined ? 'closed' : Number(status) }
}
