import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { getRequestListener } from '@hono/node-server'
import autocannon from 'autocannon'
import { Hono } from 'hono'
import { requestId } from 'hono/request-id'
import { secureHeaders } from 'hono/secure-headers'
import type { Env } from '../../src/http/context.ts'
import { HttpServer } from '../../src/http/server.ts'
import type { Bench } from '../support/bench.ts'
import { compareRates } from '../support/in-turns.ts'

const ROUNDS = 7
const ROUND_S = 2
const CONNECTIONS = 20

export const bench: Bench = {
  description: "request id and security headers: by Node, and by Hono's middleware; a minute",
  packages: ['hono', '@hono/node-server'],

  async run({ started }) {
    const ways = await compareRates(ROUNDS, await openServers(started), countPerSecond)
    return {
      tables: [{ title: 'A small answer with a request id and security headers', rows: ways }],
      figures: { ways },
    }
  },
}

async function openServers(started: AsyncDisposableStack): Promise<Record<string, string>> {
  const handler = () =>
    new Response('{"status":"ok"}', { headers: { 'Content-Type': 'application/json' } })
  const open = async (app: Hono): Promise<string> => {
    const server = createServer(getRequestListener(app.fetch)).listen(0, '127.0.0.1')
    started.defer(() => void server.close())
    await once(server, 'listening')
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  }
  const ours = started.use(new HttpServer({ leaving: new AbortController().signal }))
  return {
    'without any': await open(new Hono().get('/', handler)),
    'by Node, as offloop does': await ours.listen(
      new Hono<Env>().get('/', handler),
      '127.0.0.1',
      0,
    ),
    "by Hono's middleware": await open(
      new Hono().use(requestId()).use(secureHeaders()).get('/', handler),
    ),
  }
}

async function countPerSecond(url: string): Promise<number> {
  // In a thread of its own, so that only the server is on this one.
  const { requests, duration } = await autocannon({
    url,
    duration: ROUND_S,
    connections: CONNECTIONS,
    workers: 1,
  })
  return requests.total / duration
}
