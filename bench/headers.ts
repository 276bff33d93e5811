import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { getRequestListener } from '@hono/node-server'
import autocannon from 'autocannon'
import { Hono } from 'hono'
import { requestId } from 'hono/request-id'
import { secureHeaders } from 'hono/secure-headers'
import type { Env } from '../src/http/context.ts'
import { HttpServer } from '../src/http/server.ts'
import { median } from './statistics.ts'

/**
 * `npm run bench:headers`: a small answer with a request id and security headers, set by Hono's
 * middleware or where Node writes the head (src/http/response.ts), beside one without any. The
 * figures of docs/decisions/003.
 */
const ROUNDS = 7
const ROUND_S = 2
const CONNECTIONS = 20

const handler = () =>
  new Response('{"status":"ok"}', { headers: { 'Content-Type': 'application/json' } })
const urls = {
  'without any': await onNode(new Hono().get('/', handler)),
  'by Node, as offloop does': await new HttpServer({
    leaving: new AbortController().signal,
  }).listen(new Hono<Env>().get('/', handler), '127.0.0.1', 0),
  "by Hono's middleware": await onNode(
    new Hono().use(requestId()).use(secureHeaders()).get('/', handler),
  ),
}

const rates: Record<string, number[]> = {}
for (let round = 0; round < ROUNDS; round++)
  for (const [name, url] of Object.entries(urls))
    rates[name] = [...(rates[name] ?? []), await requestsPerSecond(url)]
console.table(
  Object.fromEntries(
    Object.entries(rates).map(([name, all]) => [
      name,
      { 'per second': Math.round(median(all)), 'of none': ratio(all) },
    ]),
  ),
)
process.exit()

async function onNode(app: Hono): Promise<string> {
  const server = createServer(getRequestListener(app.fetch)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

async function requestsPerSecond(url: string): Promise<number> {
  // In a thread of its own, so that only the server is on this one.
  const { requests, duration } = await autocannon({
    url,
    duration: ROUND_S,
    connections: CONNECTIONS,
    workers: 1,
  })
  return requests.total / duration
}

function ratio(all: number[]): number {
  return Number(
    median(all.map((rate, round) => rate / (rates['without any']?.[round] ?? Number.NaN))).toFixed(
      2,
    ),
  )
}
