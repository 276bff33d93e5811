import { randomUUID } from 'node:crypto'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { io } from 'socket.io-client'
import { expect, onTestFinished, test } from 'vitest'
import type { Db } from '../../../src/db/database.ts'
import { Valkey } from '../../../src/valkey.ts'
import { useDatabase } from '../../support/database.ts'
import { AS_OPERATOR, OPERATOR_AUTH } from '../../support/operator.ts'
import { useProcess } from '../../support/process.ts'
import { accept, readReport, slowCsv, untilFinished } from '../../support/reports.ts'
import { useS3 } from '../../support/s3-server.ts'
import { request, untilThreadsFree } from '../../support/service.ts'
import { until } from '../../support/until.ts'
import { hasValkey, useValkey } from '../../support/valkey.ts'

/**
 * Processes on one database and one directory: the first runs jobs, the others do only if told so.
 */
async function useProcesses() {
  const { url: DATABASE_URL, database } = await useDatabase()
  const directory = await mkdtemp(join(tmpdir(), 'offloop-processes-'))
  onTestFinished(() => rm(directory, { recursive: true, force: true }))
  const start = async (env: NodeJS.ProcessEnv = {}) => {
    const process = useProcess('src/main.ts', {
      DATABASE_URL,
      REPORT_DIR: directory,
      LOG_LEVEL: 'info',
      ...env,
    })
    await until(process.opsUrl, 'it listens')
    return { ...process, url: env['ROLE'] === 'worker' ? '' : await process.url() }
  }
  return {
    start,
    database,
    directory,
    spill: join(directory, 'spill'),
    uploads: join(directory, 'uploads'),
  }
}

const query = '?groupBy=word&value=number'

test('a report is cancelled from another process: its thread is free and its files are gone', async () => {
  const { start, spill, uploads } = await useProcesses()
  const [runner, other] = [await start(), await start({ JOBS_QUEUES: 'off' })]
  const { id } = await accept(other.url, slowCsv(80), { query })
  const filesIn = (directory: string) => readdir(directory, { recursive: true }).catch(() => [])
  await until(
    async () => (await filesIn(spill)).some((file) => file.endsWith('report.duckdb')),
    'DuckDB works',
  )
  const { status, body } = await request(`${other.url}/v1/reports/${id}`, 'DELETE')
  expect([status, body.state]).toEqual([202, 'cancelled'])
  await untilThreadsFree(runner.opsUrl())
  await until(
    async () => (await readdir(spill)).length + (await readdir(uploads)).length === 0,
    'the files are gone',
  )
  // The runner goes on with others.
  const next = await accept(runner.url, 'a,b\n1,2\n')
  expect((await untilFinished(runner.url, next.id)).state).toBe('succeeded')
  expect((await readReport(runner.url, id)).state).toBe('cancelled')
  expect(runner.child.exitCode).toBeNull()
})

test('the events of a report come from a process that does not run it', async () => {
  const { start } = await useProcesses()
  const other = await start({ JOBS_QUEUES: 'off' })
  const { id } = await accept(other.url, slowCsv(12), { query })
  const stream = fetch(`${other.url}/v1/reports/${id}/events`, { headers: AS_OPERATOR }).then(
    (response) => response.text(),
  )
  await start()
  const events = (await stream).match(/^event: .*$/gm) ?? []
  expect(events.filter((line) => line === 'event: report.progress').length).toBeGreaterThan(1)
  expect(events.filter((line) => line === 'event: report.finished')).toEqual([events.at(-1)])
}, 60_000)

test.runIf(hasValkey)(
  'with a Valkey, the one that runs a report tells the clients of all, each thing once',
  async () => {
    const { url: VALKEY_URL } = await useValkey()
    const { start } = await useProcesses()
    const [one, other] = await Promise.all([
      start({ VALKEY_URL, JOBS_QUEUES: 'off' }),
      start({ VALKEY_URL, JOBS_QUEUES: 'off' }),
    ])
    const { id } = await accept(one.url, slowCsv(12), { query })
    const senders = await recordSenders(VALKEY_URL, `report:${id}`)
    const heard = await Promise.all([one.url, other.url].map((url) => listen(url, id)))
    await start({ VALKEY_URL })
    const isFinished = (events: Heard[]) => events.some(({ name }) => name === 'report.finished')
    await until(() => heard.every(isFinished), 'both hear of its end')
    // Meanwhile they would read the first one from the database, too.
    const next = await accept(one.url, slowCsv(3), { query })
    await untilFinished(one.url, next.id)
    expect(senders.size).toBe(1)
    for (const events of heard) {
      expect(events.at(-1)).toEqual({
        name: 'report.finished',
        payload: { id, state: 'succeeded' },
      })
      const steps = events.slice(0, -1).map(({ payload }) => JSON.stringify(payload))
      expect(new Set(steps).size).toBe(steps.length)
      const progress = events.slice(0, -1).map(({ payload }) => payload.progress ?? 0)
      expect(progress.length).toBeGreaterThan(1)
      expect(progress).toEqual(progress.toSorted((a, b) => a - b))
    }
  },
  120_000,
)

test('the report of a killed process is finished by another one, which removes what is left of it', async () => {
  const { start, spill, database } = await useProcesses()
  const victim = await start()
  const { id } = await accept(victim.url, slowCsv(80), { query })
  await until(async () => (await readdir(spill).catch(() => [])).length > 0, 'it runs')
  victim.child.kill('SIGKILL')
  await victim.exitCode
  const [left] = await readdir(spill)
  expect(left).toMatch(id)
  await endLease(database.withSignal(), id)
  const heir = await start()
  expect(await untilFinished(heir.url, id)).toMatchObject({
    state: 'succeeded',
    attempt: 2,
  })
  expect(await readdir(spill)).toEqual([])
}, 120_000)

test('machines without a shared directory have their uploads in S3', async () => {
  const { env } = await useS3()
  const { start, directory } = await useProcesses()
  const startAs = (ROLE: string) =>
    start({ ...env, ROLE, REPORT_DIR: join(directory, randomUUID()) })
  const [first, second] = await Promise.all([startAs('web'), startAs('web'), startAs('worker')])
  const { id } = await accept(first.url, slowCsv(20), { query })
  const { state, result } = await untilFinished(second.url, id, 60_000)
  expect([state, result?.columns.length]).toEqual(['succeeded', 3])
  const files = await readdir(directory, { recursive: true, withFileTypes: true })
  expect(files.filter((file) => file.isFile())).toEqual([])
}, 90_000)

interface Heard {
  name: string
  payload: { id: string; state: string; progress?: number }
}

/** All events of a report. */
async function listen(url: string, id: string): Promise<Heard[]> {
  const socket = io(url, { transports: ['websocket'], forceNew: true, ...OPERATOR_AUTH })
  onTestFinished(() => void socket.close())
  const heard: Heard[] = []
  socket.onAny((name, payload) => heard.push({ name, payload }))
  expect(await socket.timeout(5_000).emitWithAck('subscribe', `report:${id}`)).toEqual({ ok: true })
  return heard
}

/** Which processes publish events of a topic to others. */
async function recordSenders(url: string, topic: string): Promise<Set<string>> {
  const valkey = new Valkey(url, pino({ level: 'silent' }))
  onTestFinished(() => valkey[Symbol.dispose]())
  const senders = new Set<string>()
  await until(() => valkey.isReady, 'it is connected')
  valkey.subscribe(`events:${topic}`, (event) => senders.add((event as { from: string }).from))
  await valkey.subscribed()
  return senders
}

/** As if the half minute were over for which a killed process still holds its jobs. */
const endLease = (db: Db, id: string) =>
  db
    .updateTable('job')
    .set({ due_at: new Date(0) })
    .where('id', '=', id)
    .execute()
