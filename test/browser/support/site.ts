import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { BrowserContextOptions, Page } from 'playwright-core'
import { expect, onTestFinished } from 'vitest'
import { findFreePort } from '../../../scripts/database/private-server.ts'
import { createAccount } from '../../../src/access/accounts.ts'
import { createCredential } from '../../../src/access/credentials.ts'
import type { Db } from '../../../src/db/database.ts'
import type { Feature } from '../../../src/feature.ts'
import { features } from '../../../src/features/index.ts'
import type { Role } from '../../../src/roles.ts'
import { createDatabase } from '../../support/database.ts'
import { startProcess } from '../../support/process.ts'
import { launchChromium } from './chromium.ts'
import { watchForTrouble } from './trouble.ts'

/**
 * Chromium, and the service in a process of its own as `node src/main.ts` runs it, with the
 * features' examples.
 */
export async function startSite(env: NodeJS.ProcessEnv = {}) {
  const [browser, service] = await Promise.all([launchChromium(), startMain(env)])
  return {
    ...service,
    /**
     * Opens the live page, or another path; all that went wrong in it fails the test at its end.
     */
    async open({
      path = '/',
      host = 'localhost',
      as = 'operator',
      tolerate = [],
      init,
      ...options
    }: OpenOptions = {}): Promise<Page> {
      const url = service.url.replace('localhost', host)
      const context = await browser.newContext(options)
      const value = service.sessions[as]
      if (value) await context.addCookies([{ name: 'session', value, url }])
      const trouble = await watchForTrouble(context, url)
      onTestFinished(async () => {
        await context.close()
        expect(trouble.filter((line) => !tolerate.some((pattern) => pattern.test(line)))).toEqual(
          [],
        )
      })
      if (init) await context.addInitScript(init)
      const page = await context.newPage()
      await page.goto(url + path)
      return page
    },
    async close() {
      await browser.close()
      await service.close()
    },
  }
}

interface OpenOptions extends BrowserContextOptions {
  path?: string
  /** Another name of this machine. */
  host?: string
  /** Who is signed in. */
  as?: Role | 'nobody'
  /** What the test itself brings about, such as the browser's word on an answer of 403. */
  tolerate?: RegExp[]
  /** A script that runs before those of the page. */
  init?: string
}

async function startMain(env: NodeJS.ProcessEnv) {
  const { url: DATABASE_URL, database, close } = await createDatabase()
  const db = database.withSignal()
  for (const { seed } of features as readonly Feature[]) await seed?.(db)
  const operator = await addAccount(db, 'operator')
  const member = await addAccount(db, 'member')
  // feature: reports
  const reports = await mkdtemp(join(tmpdir(), 'offloop-browser-'))
  // /feature
  const settings = {
    DATABASE_URL,
    // feature: reports
    REPORT_DIR: reports,
    // /feature
    COMPUTE_THREADS: '2',
    // feature: primes
    DEMO_INLINE: 'true',
    // /feature
    // Its worker threads yield to the browser, and there may not be a core for both.
    REQUEST_TIMEOUT_MS: '20000',
    PORT: String(await findFreePort()),
    OPS_PORT: '0',
    ...env,
  }
  let main = startProcess('src/main.ts', settings)
  const url = await main.url()
  return {
    url,
    databaseUrl: DATABASE_URL,
    opsUrl: main.opsUrl(),
    database,
    /** The header that makes a request the operator's. */
    operator: { authorization: `Bearer ${operator.key}` },
    sessions: { operator: operator.session, member: member.session, nobody: undefined },
    /** What the service has printed since its last start. */
    output: () => main.output(),
    printed: (pattern: RegExp) => main.printed(pattern),
    pid: () => main.child.pid as number,
    /** At once, as a crash would. */
    async kill() {
      main.child.kill('SIGKILL')
      await main.exitCode
    },
    /** On the same port as before. */
    async start() {
      main = startProcess('src/main.ts', settings)
      await main.url()
    },
    async close() {
      main.child.kill('SIGKILL')
      await main.exitCode
      await close()
      // feature: reports
      await rm(reports, { recursive: true })
      // /feature
    },
  }
}

/** `operator@example.com` and the like. */
async function addAccount(db: Db, role: Role) {
  const email = `${role}@example.com`
  const accountId = await createAccount(db, { email, password_hash: null, role })
  const session = await createCredential(db, { kind: 'session', accountId, name: 'test' })
  const key = await createCredential(db, { kind: 'key', accountId, name: 'test' })
  return { session: session.token, key: key.token }
}
