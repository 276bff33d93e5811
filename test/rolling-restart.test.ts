import { Agent, request } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { useDatabase } from './support/database.ts'
import { useProcess } from './support/process.ts'
import { until } from './support/until.ts'

/** `ROLLING_RESTARTS=40 npx vitest run test/rolling-restart.test.ts` for the whole of it. */
const RESTARTS = Number(process.env['ROLLING_RESTARTS'] ?? 4)
const CLIENTS = 16
/**
 * Between two requests of a client: as much load as leaves a small machine the time to start
 * processes.
 */
const THINK_MS = 5

const ITEM = () => ({ name: `Rolled ${crypto.randomUUID()}`, price: '1.00', stock: 1 })

test(
  'rolling restarts under load cut no connection under a request',
  async () => {
    const { url: DATABASE_URL } = await useDatabase()
    const start = async () => {
      const main = useProcess('test/support/fixture/main.ts', { DATABASE_URL, OPS_PORT: 'off' })
      return { ...main, base: await main.url() }
    }
    const processes = [await start(), await start()]
    const balancer = new Balancer(processes.map(({ base }) => base))
    const load = startLoad(balancer)
    for (let restart = 0; restart < RESTARTS; restart++) {
      const next = await start()
      balancer.add(next.base)
      processes.push(next)
      const old = processes.shift()
      const served = load.served()
      old?.child.kill('SIGTERM')
      expect(await old?.exitCode).toBe(0)
      await until(() => load.served() > served + 100, 'the other one serves')
    }
    await load.stop()
    console.log(`${load.served()} requests, ${balancer.refused} refused connects`)
    expect(load.failures()).toEqual([])
  },
  60_000 + RESTARTS * 15_000,
)

/**
 * Sends requests to each server in turn on kept connections, and to the next one only where a
 * connect is refused.
 */
class Balancer {
  refused = 0
  readonly #agent = new Agent({ keepAlive: true })
  readonly #urls: string[]

  constructor(urls: string[]) {
    this.#urls = urls
  }

  add(url: string) {
    this.#urls.push(url)
  }

  async send(method: string, path: string, body?: unknown): Promise<number> {
    const url = this.#urls.shift() as string
    this.#urls.push(url)
    try {
      return await this.#sendTo(url, method, path, body)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ECONNREFUSED') throw error
      this.refused++
      if (this.#urls.includes(url)) this.#urls.splice(this.#urls.indexOf(url), 1)
      return this.send(method, path, body)
    }
  }

  #sendTo(url: string, method: string, path: string, body: unknown): Promise<number> {
    return new Promise((resolve, reject) => {
      const headers = { 'content-type': 'application/json' }
      const sent = request(url + path, { method, agent: this.#agent, headers }, (response) => {
        response
          .on('error', reject)
          .on('end', () => resolve(response.statusCode ?? 0))
          .resume()
      })
      sent.on('error', reject).end(body === undefined ? undefined : JSON.stringify(body))
    })
  }
}

/** Clients that read and, now and then, write. */
function startLoad(balancer: Balancer) {
  let [stopped, served] = [false, 0]
  const failures: unknown[] = []
  const clients = Array.from({ length: CLIENTS }, async () => {
    for (let turn = 0; !stopped; turn++) {
      const writes = turn % 10 === 0
      try {
        const status = await (writes
          ? balancer.send('POST', '/v1/items', ITEM())
          : balancer.send('GET', '/v1/items?limit=1'))
        if (status === (writes ? 201 : 200)) served++
        else failures.push(status)
      } catch (error) {
        failures.push(`${writes ? 'POST' : 'GET'}: ${error}`)
      }
      await sleep(THINK_MS)
    }
  })
  return {
    served: () => served,
    failures: () => failures,
    async stop() {
      stopped = true
      await Promise.all(clients)
    },
  }
}
