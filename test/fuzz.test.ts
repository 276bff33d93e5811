import { argon2Sync } from 'node:crypto'
import { insertJob, toNewJob } from '@offloop/jobs/enqueue'
import { job } from '@offloop/jobs/job'
import { Pool } from 'undici'
import { expect, test } from 'vitest'
import { createAccount } from '../src/access/accounts.ts'
import { createCredential } from '../src/access/credentials.ts'
import { ARGON2, toPhc } from '../src/access/password.ts'
import { transaction } from '../src/db/transaction.ts'
import type { Role } from '../src/roles.ts'
import { readApi } from './support/api.ts'
import { openAllAndFixture } from './support/fixture/features.ts'
import { type Caller, type FuzzedRequest, Fuzzer, MEMBER, PASSWORD } from './support/fuzzer.ts'
import { useService } from './support/service.ts'

/** `FUZZ_REQUESTS=100000 FUZZ_SEED=7 npx vitest run test/fuzz.test.ts` for many, or others. */
const REQUESTS = Number(process.env['FUZZ_REQUESTS'] ?? 1_500)
const SEED = Number(process.env['FUZZ_SEED'] ?? 1)
const CLIENTS = 16
const SALT = Buffer.from('the salt of a test')
const MAX_REPORTED = 20
/** What a server may answer that is not broken: it is overloaded, late, or full. */
const HONEST_FAILURES = [503, 504, 507]
/** What no answer tells, but those on what the event loop runs: a stack, a file, a statement, an error of the database, a password. */
const INTERNAL = new RegExp(
  `\\\\n *at |node_modules|\\.ts:\\d|(select|insert into|update|delete from) \`|\\bER_[A-Z]|${PASSWORD}`,
)

test(
  `${REQUESTS} requests made up from the OpenAPI document, by anybody: nothing breaks, and every answer fits it`,
  async () => {
    const service = await useService(
      { JOBS_QUEUES: 'off', REQUEST_TIMEOUT_MS: '2000' },
      openAllAndFixture,
    )
    // One that can be cancelled and retried, whether or not a feature has jobs.
    await transaction(service.database.withSignal(), (trx) =>
      insertJob(trx, toNewJob(job('test.fuzzed'), null, {})),
    )
    const api = await readApi(service.url)
    const fuzzer = new Fuzzer(SEED, api.operations, api.document.components.schemas)
    const callers = await addCallers(service)
    const pool = new Pool(service.url, { connections: CLIENTS })
    const statuses = new Map<number, number>()
    const wrong: object[] = []

    let left = REQUESTS
    const client = async () => {
      while (left-- > 0 && wrong.length < MAX_REPORTED) {
        const { operation, caller, ...request } = fuzzer.next()
        const headers = { ...callers.headersOf(caller), ...request.headers }
        const answer = await send(pool, { ...request, headers })
        const { status, text } = answer
        statuses.set(status, (statuses.get(status) ?? 0) + 1)
        if (status === 401) await callers.renew(caller)
        if (text) fuzzer.observe(operation, text)
        const misfits = api.misfits(operation, answer)
        if (status >= 500 && !HONEST_FAILURES.includes(status)) misfits.push('it broke')
        const mayTell = ['readOps', 'recordProfile'].includes(operation.operationId)
        if (text && !mayTell && INTERNAL.test(text))
          misfits.push(`it tells what it must not: ${text}`)
        if (misfits.length > 0)
          wrong.push({ ...request, caller, operation: operation.operationId, status, misfits })
      }
    }
    await Promise.all(Array.from({ length: CLIENTS }, client))
    await pool.close()
    if (REQUESTS > 10_000) console.log(Object.fromEntries([...statuses].sort()))
    expect(wrong).toEqual([])
    const successes = api.operations
      .flatMap(({ responses }) => Object.keys(responses).map(Number))
      .filter((status) => status < 300)
    for (const status of [...successes, 401, 403, 404, 415, 422])
      expect([...statuses.keys()]).toContain(status)
  },
  60_000 + REQUESTS * 20,
)

/** A member with a session and an operator with an API key, which are replaced when they end. */
async function addCallers({ url, database }: Awaited<ReturnType<typeof useService>>) {
  const db = database.withSignal()
  const password_hash = toPhc(
    SALT,
    argon2Sync('argon2id', { ...ARGON2, message: PASSWORD, nonce: SALT }),
  )
  const add = (email: string, role: Role) => createAccount(db, { email, password_hash, role })
  const ids = {
    member: await add(MEMBER, 'member'),
    operator: await add('o@example.com', 'operator'),
  }
  const headers: Record<Caller, Record<string, string>> = {
    anonymous: {},
    member: {},
    operator: {},
  }
  const renew = async (caller: Caller) => {
    if (caller === 'anonymous') return
    const kind = caller === 'member' ? 'session' : 'key'
    const { token } = await createCredential(db, { kind, accountId: ids[caller], name: 'fuzz' })
    headers[caller] =
      kind === 'session'
        ? { cookie: `session=${token}`, origin: url }
        : { authorization: `Bearer ${token}` }
  }
  await Promise.all([renew('member'), renew('operator')])
  return { headersOf: (caller: Caller) => headers[caller], renew }
}

async function send(
  pool: Pool,
  { method, path, headers, body }: Omit<FuzzedRequest, 'operation' | 'caller'>,
) {
  const response = await pool.request({
    method,
    path,
    headers,
    ...(body !== undefined && { body }),
  } as Parameters<Pool['request']>[0])
  const isStream = response.headers['content-type'] === 'text/event-stream'
  if (isStream) response.body.on('error', () => {}).destroy()
  const isRead = !isStream && method !== 'HEAD'
  const text = isStream ? undefined : await response.body.text()
  return { status: response.statusCode, headers: response.headers, text: isRead ? text : undefined }
}
