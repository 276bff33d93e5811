import { Agent, request } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { createAccount } from '../src/access/accounts.ts'
import { createCredential } from '../src/access/credentials.ts'
import type { Db } from '../src/db/database.ts'
import { useDatabase } from './support/database.ts'
import { hasNginx, useNginx } from './support/nginx.ts'
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

/** How often somebody asks each process whether it is ready. */
const CHECK_MS = 200
const DRAIN_DELAY_MS = '3000'

const ITEM = () => ({ name: `Rolled ${crypto.randomUUID()}`, price: '1.00', stock: 1 })

test(
  'rolling restarts under load cut no connection under a request',
  async () => {
    const { url: DATABASE_URL, database } = await useDatabase()
    const start = async () => {
      const main = useProcess('test/support/fixture/main.ts', {
        DATABASE_URL,
        OPS_PORT: 'off',
        RATE_LIMITS: 'off',
      })
      return { ...main, base: await main.url() }
    }
    const processes = [await start(), await start()]
    const balancer = new Balancer(processes.map(({ base }) => base))
    const load = startLoad(balancer, await signIn(database.withSignal()))
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

test.runIf(hasNginx)(
  'rolling restarts behind nginx, which asks who is ready more often than DRAIN_DELAY_MS, fail no request',
  async () => {
    const { url: DATABASE_URL, database } = await useDatabase()
    const start = async () => {
      const env = { DATABASE_URL, DRAIN_DELAY_MS, RATE_LIMITS: 'off' }
      const main = useProcess('test/support/fixture/main.ts', env)
      return { ...main, base: await main.url() }
    }
    const processes = [await start(), await start()]
    const led = () => processes.map(({ base }) => base)
    const nginx = await useNginx(led())
    const send = (...request: Request) => sendTo(nginx.url, new Agent(), ...request)
    const load = startLoad({ send }, await signIn(database.withSignal()))
    for (let restart = 0; restart < RESTARTS; restart++) {
      processes.push(await start())
      await nginx.lead(led())
      const served = load.served()
      await until(() => load.served() > served + 100, 'all three serve')
      const old = processes[0] ?? expect.unreachable()
      old.child.kill('SIGTERM')
      while ((await fetch(`${old.opsUrl()}/health/ready`)).ok) await sleep(CHECK_MS)
      processes.shift()
      await nginx.lead(led())
      expect(await old.exitCode).toBe(0)
    }
    await load.stop()
    console.log(`${load.served()} requests behind nginx`)
    expect(load.failures()).toEqual([])
  },
  60_000 + RESTARTS * 15_000,
)

type Headers = Record<string, string>
type Request = [method: string, path: string, headers: Headers, body?: unknown]

/** The headers of a member's browser. */
async function signIn(db: Db): Promise<Headers> {
  const account = { email: 'member@example.com', password_hash: null, role: 'member' } as const
  const accountId = await createAccount(db, account)
  const { token } = await createCredential(db, { kind: 'session', accountId, name: 'test' })
  return { cookie: `session=${token}`, 'sec-fetch-site': 'same-origin' }
}

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

  send = async (...request: Request): Promise<number> => {
    const url = this.#urls.shift() as string
    this.#urls.push(url)
    try {
      return await sendTo(url, this.#agent, ...request)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ECONNREFUSED') throw error
      this.refused++
      if (this.#urls.includes(url)) this.#urls.splice(this.#urls.indexOf(url), 1)
      return this.send(...request)
    }
  }
}

function sendTo(url: string, agent: Agent, ...[method, path, headers, body]: Request) {
  return new Promise<number>((resolve, reject) => {
    const json = { 'content-type': 'application/json', ...headers }
    const sent = request(url + path, { method, agent, headers: json }, (response) => {
      response
        .on('error', reject)
        .on('end', () => resolve(response.statusCode ?? 0))
        .resume()
    })
    sent.on('error', reject).end(body === undefined ? undefined : JSON.stringify(body))
  })
}

/** Clients that read, as anybody and signed in, and now and then write. */
function startLoad({ send }: { send(...request: Request): Promise<number> }, session: Headers) {
  const reads: Request[] = [
    ['GET', '/v1/items?limit=1', {}],
    ['GET', '/v1/accounts/me', session],
  ]
  const write = (): Request => ['POST', '/v1/items', session, ITEM()]
  let [stopped, served] = [false, 0]
  const failures: unknown[] = []
  const clients = Array.from({ length: CLIENTS }, async () => {
    for (let turn = 0; !stopped; turn++) {
      const made = turn % 10 === 0 ? write() : (reads[turn % 2] as Request)
      try {
        const status = await send(...made)
        if (status === 200 || status === 201) served++
        else failures.push(`${made[0]} ${made[1]}: ${status}`)
      } catch (error) {
        failures.push(`${made[0]} ${made[1]}: ${error}`)
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
