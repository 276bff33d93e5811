import { insertJob, toNewJob } from '@offloop/jobs/enqueue'
import { job } from '@offloop/jobs/job'
import { Pool } from 'undici'
import { expect, test } from 'vitest'
import { transaction } from '../src/db/transaction.ts'
import { readApi } from './support/api.ts'
import { openAllAndFixture } from './support/fixture/features.ts'
import { type FuzzedRequest, Fuzzer } from './support/fuzzer.ts'
import { useService } from './support/service.ts'

/** `FUZZ_REQUESTS=100000 FUZZ_SEED=7 npx vitest run test/fuzz.test.ts` for many, or others. */
const REQUESTS = Number(process.env['FUZZ_REQUESTS'] ?? 1_500)
const SEED = Number(process.env['FUZZ_SEED'] ?? 1)
const CLIENTS = 16
const MAX_REPORTED = 20
/** What a server may answer that is not broken: it is overloaded, late, or full. */
const HONEST_FAILURES = [503, 504, 507]

test(
  `${REQUESTS} requests made up from the OpenAPI document: nothing breaks, and every answer fits it`,
  async () => {
    const service = await useService(
      { JOBS_CONCURRENCY: '0', REQUEST_TIMEOUT_MS: '2000' },
      openAllAndFixture,
    )
    // One that can be cancelled and retried, whether or not a feature has jobs.
    await transaction(service.database.withSignal(), (trx) =>
      insertJob(trx, toNewJob(job('test.fuzzed'), null, {})),
    )
    const api = await readApi(service.url)
    const fuzzer = new Fuzzer(SEED, api.operations, api.document.components.schemas)
    const pool = new Pool(service.url, { connections: CLIENTS })
    const statuses = new Map<number, number>()
    const wrong: object[] = []

    let left = REQUESTS
    const client = async () => {
      while (left-- > 0 && wrong.length < MAX_REPORTED) {
        const request = fuzzer.next()
        const answer = await send(pool, request)
        statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1)
        if (answer.text) fuzzer.observe(request.operation, answer.text)
        const misfits = api.misfits(request.operation, answer)
        if (answer.status >= 500 && !HONEST_FAILURES.includes(answer.status))
          misfits.push('it broke')
        const { operation, ...sent } = request
        if (misfits.length > 0)
          wrong.push({ ...sent, operation: operation.operationId, status: answer.status, misfits })
      }
    }
    await Promise.all(Array.from({ length: CLIENTS }, client))
    await pool.close()
    if (REQUESTS > 10_000) console.log(Object.fromEntries([...statuses].sort()))
    expect(wrong).toEqual([])
    const successes = api.operations
      .flatMap(({ responses }) => Object.keys(responses).map(Number))
      .filter((status) => status < 300)
    for (const status of [...successes, 404, 415, 422])
      expect([...statuses.keys()]).toContain(status)
  },
  60_000 + REQUESTS * 20,
)

async function send(pool: Pool, { method, path, headers, body }: FuzzedRequest) {
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
