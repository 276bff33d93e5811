import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { atLeast, type Bench } from '../support/bench.ts'
import { openBenchDatabase } from '../support/database.ts'
import { compareRates, type Way } from '../support/in-turns.ts'
import { drive } from '../support/load.ts'
import { machine } from '../support/machine.ts'
import { startApp } from '../support/servers.ts'
import { number } from '../support/table.ts'

const ROUNDS = 40
/** Short, because the speed of a shared machine changes within seconds. */
const ROUND_MS = 500
const READ = { requests: [{ path: '/v1/products/7' }] }

/** The sampled shares of requests. */
const SHARES = { 'one of ten requests': '0.1', 'all requests': '1' }

export const bench: Bench<{ ways: Way[] }> = {
  description: 'what traces cost a read by id; two minutes',
  packages: ['hono', 'mysql2', '@opentelemetry/sdk-trace'],

  async run({ started }) {
    const database = started.use(await openBenchDatabase())
    const collector = await startCollector(started)
    const start = async (env: Record<string, string>) =>
      started.use(await startApp(database.url, machine.cores, { env })).url
    const urls: Record<string, string> = { 'no traces': await start({}) }
    for (const [name, OTEL_TRACES_SAMPLER_ARG] of Object.entries(SHARES))
      urls[name] = await start({
        OTEL_EXPORTER_OTLP_ENDPOINT: collector,
        OTEL_TRACES_SAMPLER: 'parentbased_traceidratio',
        OTEL_TRACES_SAMPLER_ARG,
      })
    const ways = await compareRates(
      ROUNDS,
      urls,
      async (url) => (await drive(url, READ, ROUND_MS)).perSecond,
    )
    return {
      tables: [{ title: 'Reads by id', rows: ways }],
      figures: { versions: { database: database.version }, ways },
      targets: [atLeast('traces of one of ten requests ÷ none', ways[1]?.ofFirst ?? 0, 0.9)],
    }
  },

  summarise: ({ ways: [, sampled, all] }) => [
    [
      'reads by id with traces of one of ten requests',
      `${number(sampled?.ofFirst, 2)} of without`,
      `of all requests, ${number(all?.ofFirst, 2)}`,
    ],
  ],
}

/** Takes whatever comes, and keeps nothing; returns its URL. */
async function startCollector(started: AsyncDisposableStack): Promise<string> {
  const server = createServer((request, response) => {
    request.resume().on('end', () => response.end('{}'))
  }).listen(0, '127.0.0.1')
  started.defer(() => void server.close())
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}
