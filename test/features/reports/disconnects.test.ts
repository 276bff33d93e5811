import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readdir, rm, utimes } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { sweep } from '../../../src/features/reports/jobs.ts'
import { DirectoryStorage } from '../../../src/features/reports/storage.ts'
import { useDatabase } from '../../support/database.ts'
import { AS_OPERATOR } from '../../support/operator.ts'
import { useProcess } from '../../support/process.ts'
import { connectTo } from '../../support/raw-http.ts'
import { accept, untilFinished } from '../../support/reports.ts'
import { until } from '../../support/until.ts'

const NEVER = new AbortController().signal
const CLIENTS = 100
const AT_ONCE = 10

test('clients that leave at any moment of their uploads lose no committed report, and leave nothing else', async () => {
  const { url: DATABASE_URL, database } = await useDatabase()
  const REPORT_DIR = await mkdtemp(join(tmpdir(), 'offloop-leaving-'))
  onTestFinished(() => rm(REPORT_DIR, { recursive: true, force: true }))
  const service = useProcess('src/main.ts', {
    DATABASE_URL,
    REPORT_DIR,
    LOG_LEVEL: 'info',
    RATE_LIMITS: 'off',
    OPS_PORT: 'off',
  })
  const url = await service.url()
  const db = database.withSignal()

  // They leave within twice the time that an upload takes, so that some are in time for the commit
  // and others are not.
  const startedAt = performance.now()
  await Promise.all(Array.from({ length: AT_ONCE }, () => accept(url, 'a\n1\n')))
  const maxStayMs = Math.ceil(2 * (performance.now() - startedAt))

  const clients = Array.from({ length: CLIENTS }, (_, index) => index)
  const sendNext = async () => {
    for (let index = clients.pop(); index !== undefined; index = clients.pop())
      await leaveUpload(url, index, randomInt(maxStayMs))
  }
  await Promise.all(Array.from({ length: AT_ONCE }, sendNext))
  await until(
    async () =>
      (
        await db
          .selectFrom('job')
          .select('id')
          .where('state', 'in', ['queued', 'running', 'scheduled'])
          .execute()
      ).length === 0,
    'all reports are finished',
    60_000,
  )
  await until(
    async () =>
      (await readdir(join(REPORT_DIR, 'uploads'))).every((name) => !name.endsWith('.part')),
    'parts are removed',
  )

  const reports = await db
    .selectFrom('report')
    .innerJoin('job', 'job.id', 'report.id')
    .select(['report.id', 'job.state', 'job.error', 'report.idempotency_key as key'])
    .where('report.idempotency_key', 'is not', null)
    .execute()
  // Or else the clients left too early or too late for the test to show anything.
  expect(reports.length).toBeGreaterThan(CLIENTS / 10)
  expect(reports.length).toBeLessThan(CLIENTS)
  expect(reports.filter(({ state }) => state !== 'succeeded')).toEqual([])

  const uploads = join(REPORT_DIR, 'uploads')
  const twoHoursAgo = new Date(Date.now() - 7_200_000)
  for (const name of await readdir(uploads))
    await utimes(join(uploads, name), twoHoursAgo, twoHoursAgo)
  await sweep(
    { database, storage: new DirectoryStorage(uploads), spillDirectory: join(REPORT_DIR, 'spill') },
    NEVER,
  )
  expect((await readdir(uploads)).length).toBe(reports.length + AT_ONCE)

  for (const { key } of reports.slice(0, 20)) {
    const { id } = await accept(url, csvOf(Number(key)), {
      headers: { 'idempotency-key': String(key) },
    })
    expect((await untilFinished(url, id)).state).toBe('succeeded')
  }
  for (let time = 0; time < 50; time++)
    await leaveEvents(url, String(reports[0]?.id), randomInt(10))
  const problems = service
    .output()
    .split('\n')
    // The event loop may be blocked on a busy machine.
    .filter((line) => /"level":[456]0/.test(line) && !line.includes('event loop'))
  expect(problems).toEqual([])
}, 120_000)

const csvOf = (index: number) => `a,b\n${index},1\n${index},2\n`

/**
 * Sends all or a part of an upload, and closes the connection a moment later without reading an
 * answer.
 */
async function leaveUpload(url: string, index: number, stayMs: number): Promise<void> {
  const body = csvOf(index)
  const socket = await connectTo(url)
  const closed = once(socket, 'close')
  socket.on('error', () => {})
  const head = `POST /v1/reports HTTP/1.1\r\nHost: a\r\nAuthorization: ${AS_OPERATOR.authorization}\r\nContent-Type: text/csv\r\nIdempotency-Key: ${index}\r\nContent-Length: ${body.length}\r\n\r\n`
  socket.write(head + (randomInt(4) === 0 ? body.slice(0, randomInt(body.length)) : body))
  setTimeout(() => socket.destroy(), stayMs)
  await closed
}

/** Asks for the events of a finished report, and closes the connection a moment later. */
async function leaveEvents(url: string, id: string, stayMs: number): Promise<void> {
  const socket = await connectTo(url)
  const closed = once(socket, 'close')
  socket.on('error', () => {})
  socket.write(`GET /v1/reports/${id}/events HTTP/1.1\r\nHost: a\r\n\r\n`)
  setTimeout(() => socket.destroy(), stayMs)
  await closed
}
