import { createHash } from 'node:crypto'
import { readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { io, type Socket } from 'socket.io-client'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import type { ServerEvents } from '../../../src/feature.ts'
import type { features } from '../../../src/features/index.ts'
import type { ClientEvents } from '../../../src/realtime/realtime.ts'
import { AS_OPERATOR, OPERATOR_AUTH } from '../../support/operator.ts'
import { connectTo } from '../../support/raw-http.ts'
import {
  accept,
  outcomesIn,
  post,
  readReport,
  slowCsv,
  tableCsv,
  untilFinished,
} from '../../support/reports.ts'
import { request, startService, untilThreadsFree, useService } from '../../support/service.ts'
import { useSmallDisk } from '../../support/small-disk.ts'
import { until } from '../../support/until.ts'

const MIB = 1024 ** 2
const GIB = 1024 ** 3
const UNKNOWN = '01981c5e-5f0a-7c4e-9a54-6b1d5b0d8a11'

let service: Awaited<ReturnType<typeof startService>>
let url: string

beforeAll(async () => {
  service = await startService()
  url = service.url
})
afterAll(() => service.close())

const filesIn = (directory: string) =>
  readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ name }) => name)

const uploadFiles = () => filesIn(join(service.reportDirectory, 'uploads'))

describe('uploading', () => {
  test('is answered 202 with where the report is, which then succeeds', async () => {
    const bytes = tableCsv('weather')
    const { status, headers, body } = await post(url, bytes, {
      query: '?groupBy=weather&value=wind',
    })
    expect(status).toBe(202)
    expect(headers.get('location')).toBe(`/v1/reports/${body.id}`)
    const sha256 = createHash('sha256').update(bytes).digest('hex')
    expect(body).toMatchObject({
      state: 'queued',
      progress: 0,
      bytes: bytes.length,
      sha256,
      groupBy: 'weather',
      value: 'wind',
    })
    const report = await untilFinished(url, body.id)
    expect(report).toMatchObject({
      state: 'succeeded',
      progress: 1,
      attempt: 1,
      error: null,
      result: { rows: 1_461 },
    })
  })

  test('takes gzip, too', async () => {
    const { id } = await accept(url, gzipSync(tableCsv('airports')), {
      headers: { 'content-encoding': 'gzip' },
    })
    expect((await untilFinished(url, id)).result?.rows).toBe(3_376)
  })

  test.each(['', 'a,b\n', Buffer.from('89504e470d0a1a0a0000', 'hex')])(
    'a file like %j fails at once, with words',
    async (content) => {
      const { id } = await accept(url, content)
      const { state, attempt, error } = await untilFinished(url, id)
      expect([state, attempt]).toEqual(['failed', 1])
      expect(error).toMatch(/^The file is (empty|not a CSV)/)
    },
  )

  test('a missing column fails at once and is named', async () => {
    const { id } = await accept(url, 'a,b\n1,2\n', { query: '?groupBy=colour' })
    expect(await untilFinished(url, id)).toMatchObject({
      state: 'failed',
      attempt: 1,
      error: 'There is no column "colour"; the file has "a", "b"',
    })
  })

  test.each<[Record<string, string>]>([
    [{ 'content-type': 'text/plain' }],
    [{ 'content-type': '' }],
    [{ 'content-encoding': 'br' }],
  ])('with %j is 415', async (headers) => {
    const { status, body } = await post(url, 'a,b\n', { headers })
    expect([status, body.code]).toEqual([415, 'unsupported_media_type'])
  })

  test.each(['value=a', 'groupBy=', 'colour=red'])('with ?%s is 422', async (query) => {
    expect((await post(url, 'a\n1\n', { query: `?${query}` })).status).toBe(422)
  })

  test('of more than 1 GiB is 413, before a byte is sent', async () => {
    const before = uploadFiles()
    const socket = await connectTo(url)
    socket.write(
      `POST /v1/reports HTTP/1.1\r\nHost: a\r\nAuthorization: ${AS_OPERATOR.authorization}\r\nContent-Type: text/csv\r\nContent-Length: ${GIB + 1}\r\n\r\n`,
    )
    expect(await answerOn(socket)).toMatch(/^HTTP\/1.1 413 /)
    expect(uploadFiles()).toEqual(before)
  })

  test('that is broken off leaves nothing', async () => {
    const before = uploadFiles()
    const socket = await connectTo(url)
    socket.write(
      `POST /v1/reports HTTP/1.1\r\nHost: a\r\nAuthorization: ${AS_OPERATOR.authorization}\r\nContent-Type: text/csv\r\nContent-Length: ${MIB}\r\n\r\na,b\n1,2\n`,
    )
    await until(() => uploadFiles().length === before.length + 1, 'it begins to arrive')
    socket.destroy()
    await until(() => uploadFiles().length === before.length, 'what came is gone')
  })

  test('may take longer than other requests', async () => {
    const { url } = await useService({ REQUEST_TIMEOUT_MS: '1000' })
    const started = performance.now()
    const body = new ReadableStream<Uint8Array>({
      async pull(controller) {
        if (performance.now() - started > 2_000) return controller.close()
        controller.enqueue(Buffer.from(`${performance.now()}\n`))
        await new Promise((resolve) => setTimeout(resolve, 50))
      },
    })
    const { id } = await accept(url, body)
    expect((await untilFinished(url, id)).state).toBe('succeeded')
  })

  test.skipIf(!useSmallDisk.isPossible)('to a full disk is 507, and leaves nothing', async () => {
    const directory = await useSmallDisk('2m')
    const { url } = await useService({ REPORT_DIR: directory })
    for (const body of [
      Buffer.alloc(4 * MIB, 'a,b\n'),
      new Blob([Buffer.alloc(4 * MIB, 'a,b\n')]).stream(),
    ]) {
      const { status, body: problem } = await post(url, body)
      expect([status, problem.code]).toEqual([507, 'storage_full'])
      expect(filesIn(directory)).toEqual([])
    }
    expect((await post(url, Buffer.alloc(MIB, 'a,b\n'))).status).toBe(202)
  })

  test.skipIf(!useSmallDisk.isPossible)(
    'of many files at once onto a nearly full disk takes those that fit',
    async () => {
      const { url } = await useService({
        REPORT_DIR: await useSmallDisk('2m'),
        JOBS_QUEUES: 'off',
      })
      const answers = await Promise.all(
        Array.from({ length: 20 }, () => post(url, Buffer.alloc(1.5 * MIB, 'a,b\n'))),
      )
      expect(answers.map(({ status }) => status).toSorted()).toEqual([
        202,
        ...Array.from({ length: 19 }, () => 507),
      ])
    },
  )

  test('may be compressed by gzip only, and must be where its client says so', async () => {
    const gzip = gzipSync('a,b\n1,2\n')
    const statusOf = async (body: string | Uint8Array, encoding: string) =>
      (await post(url, body, { headers: { 'content-encoding': encoding } })).status
    for (const encoding of ['gzip', 'GZIP', 'x-gzip'])
      expect(await statusOf(gzip, encoding)).toBe(202)
    for (const encoding of ['identity', ''])
      expect(await statusOf('a,b\n1,2\n', encoding)).toBe(202)
    const before = uploadFiles().length
    for (const body of ['a,b\n1,2\n', 'a', '\x1f', ''])
      expect(await statusOf(body, 'gzip')).toBe(400)
    for (const encoding of ['br', 'deflate', 'gzip, gzip', 'gzip, br'])
      expect(await statusOf(gzip, encoding)).toBe(415)
    const { headers } = await post(url, gzip, { headers: { 'content-encoding': 'br' } })
    expect(headers.get('accept-encoding')).toBe('gzip, identity')
    expect(uploadFiles().length).toBe(before)
  })
})

test.skipIf(!useSmallDisk.isPossible)(
  'a report whose disk is full is tried again later, and succeeds when there is room',
  async () => {
    const directory = await useSmallDisk('6m')
    const { url, database } = await useService({ REPORT_DIR: directory })
    const ballast = join(directory, 'ballast')
    const upload = slowCsv(2)
    writeFileSync(ballast, Buffer.alloc(3.9 * MIB))
    const { id } = await accept(url, upload)
    const hasFailed = async () => (await readReport(url, id)).error !== null
    await until(hasFailed, 'the first attempt is over', 30_000)
    const { state, error } = await readReport(url, id)
    expect(error).toBe('There is no room on the disk for this report')
    expect(['queued', 'running']).toContain(state)
    rmSync(ballast)
    const waiting = database
      .withSignal()
      .updateTable('job')
      .where('id', '=', id)
      .where('state', '=', 'scheduled')
    await waiting.set({ due_at: new Date(0) }).execute()
    expect(await untilFinished(url, id, 30_000)).toMatchObject({ state: 'succeeded', error: null })
  },
  90_000,
)

describe('an Idempotency-Key', () => {
  const key = (value: string) => ({ headers: { 'idempotency-key': value } })

  test('makes a repeat answer with the first', async () => {
    const first = await accept(url, 'a,b\n1,2\n', key('repeat'))
    const before = uploadFiles()
    expect((await accept(url, 'a,b\n1,2\n', key('repeat'))).id).toBe(first.id)
    expect(uploadFiles()).toEqual(before)
  })

  test('lets one of many win who race', async () => {
    const before = uploadFiles().length
    const reports = await Promise.all(
      Array.from({ length: 6 }, () => accept(url, 'a,b\n3,4\n', key('race'))),
    )
    expect(new Set(reports.map(({ id }) => id)).size).toBe(1)
    expect(uploadFiles().length).toBe(before + 1)
  })

  test('that was used for another file, or other columns, is a conflict', async () => {
    await accept(url, 'a,b\n1,2\n', key('taken'))
    expect((await post(url, 'a,b\n1,3\n', key('taken'))).status).toBe(409)
    expect((await post(url, 'a,b\n1,2\n', { ...key('taken'), query: '?groupBy=a' })).status).toBe(
      409,
    )
  })
})

describe('a report of the same bytes and columns', () => {
  test('takes the result of the first, and one of other columns does not', async () => {
    const { url, database } = await useService()
    const first = await untilFinished(
      url,
      (await accept(url, 'a,b\nx,2\n', { query: '?groupBy=a' })).id,
    )
    const marked = JSON.stringify({ ...first.result, rows: 77 })
    await database
      .withSignal()
      .updateTable('job')
      .set({ result: marked })
      .where('id', '=', first.id)
      .execute()
    const rowsOf = async (query: string) =>
      (await untilFinished(url, (await accept(url, 'a,b\nx,2\n', { query })).id)).result?.rows
    expect([await rowsOf('?groupBy=a'), await rowsOf('?groupBy=b'), await rowsOf('')]).toEqual([
      77, 1, 1,
    ])
  })

  test.each([
    ['region', 'region '],
    ['region ', 'region'],
    ['region', 'Region'],
    ['region', 'région'],
    ['r\u00e9gion', 're\u0301gion'],
  ])('of %j takes nothing from one of %j', async (first, second) => {
    const { url } = await useService()
    const csv = `"${first}",v\nx,1\n`
    const stateOf = async (query: object) =>
      (
        await untilFinished(
          url,
          (
            await accept(url, csv, { query: `?${new URLSearchParams({ ...query })}` })
          ).id,
        )
      ).state
    expect(await stateOf({ groupBy: first })).toBe('succeeded')
    expect(await stateOf({ groupBy: second })).toBe('failed')
    expect(await stateOf({ groupBy: 'v', value: 'v' })).toBe('succeeded')
    expect(await stateOf({ groupBy: 'v', value: second })).toBe('failed')
  })
})

describe('reading', () => {
  test('takes an id in any case', async () => {
    const { id } = await accept(url, 'a,b\n1,2\n', { query: '?groupBy=a' })
    await untilFinished(url, id)
    const path = `${url}/v1/reports/${id.toUpperCase()}`
    expect((await request(path)).body).toMatchObject({ id, state: 'succeeded' })
    expect((await fetch(`${path}?format=csv`, { headers: AS_OPERATOR })).status).toBe(200)
    expect(await eventsOf(url, id.toUpperCase())).toEqual([
      ['report.finished', { id, state: 'succeeded' }],
    ])
    expect((await request(path, 'DELETE')).body.id).toBe(id)
  })

  test('answers 404 to an id that does not exist and 422 to one that cannot', async () => {
    for (const [method, path] of [
      ['GET', ''],
      ['DELETE', ''],
      ['GET', '/events'],
    ] as const) {
      expect((await request(`${url}/v1/reports/${UNKNOWN}${path}`, method)).status).toBe(404)
      expect((await request(`${url}/v1/reports/seven${path}`, method)).status).toBe(422)
    }
  })

  test('lists all, newest first, page by page, without results', async () => {
    const { url } = await useService()
    const made: string[] = []
    for (let index = 0; index < 5; index++) made.unshift((await accept(url, `a\n${index}\n`)).id)
    const ids: string[] = []
    for (let cursor: string | null = ''; cursor !== null; ) {
      const { body } = await request(`${url}/v1/reports?limit=2${cursor && `&cursor=${cursor}`}`)
      ids.push(...body.items.map(({ id }: { id: string }) => id))
      for (const item of body.items) expect(item).not.toHaveProperty('result')
      cursor = body.nextCursor
    }
    expect(ids).toEqual(made)
    expect((await request(`${url}/v1/reports?cursor=nonsense`)).status).toBe(422)
  })

  test('gives the groups as CSV, quoted, and with no formula for a spreadsheet to run', async () => {
    const csv = 'who,v\n"=HYPERLINK(""x"")",1\n"Ann, Bob",2\n"Ann, Bob",4\n-5,3\n,5\n'
    const { id } = await accept(url, csv, { query: '?groupBy=who&value=v' })
    await untilFinished(url, id)
    const response = await fetch(`${url}/v1/reports/${id}?format=csv`, { headers: AS_OPERATOR })
    expect(response.headers.get('content-type')).toBe('text/csv; charset=utf-8')
    expect((await response.text()).split('\r\n')).toEqual([
      'who,count,sum of v,mean of v',
      '"Ann, Bob",2,6,3',
      '-5,1,3,3',
      `"'=HYPERLINK(""x"")",1,1,1`,
      ',1,5,5',
      '',
    ])
  })

  test('gives no CSV of a report without groups', async () => {
    const { id } = await accept(url, 'who,v\nx,1\n')
    await untilFinished(url, id)
    expect((await request(`${url}/v1/reports/${id}?format=csv`)).status).toBe(409)
  })
})

describe('cancelling', () => {
  test('stops DuckDB, frees the thread, removes the files, and is the last that is heard', async () => {
    const { url, opsUrl, reportDirectory } = await useService()
    const report = await accept(url, slowCsv(60), { query: '?groupBy=word&value=number' })
    const socket = await listen(url, report.id)
    const stream = eventsOf(url, report.id)
    await until(() => filesIn(reportDirectory).includes('report.duckdb'), 'DuckDB works')
    const { status, body } = await request(`${url}/v1/reports/${report.id}`, 'DELETE')
    expect([status, body.state]).toEqual([202, 'cancelled'])
    await untilThreadsFree(opsUrl)
    await until(() => filesIn(reportDirectory).length === 0, 'the files are gone')
    expect(await until(() => outcomesIn(opsUrl), 'it is counted')).toEqual(['cancelled'])
    expect((await stream).at(-1)).toEqual([
      'report.finished',
      { id: report.id, state: 'cancelled' },
    ])
    await until(() => socket.at(-1)?.[0] === 'report.finished', 'the socket hears of it')
    // Another report goes its whole way meanwhile: what would be told of the first one by mistake
    // was told by then.
    await untilFinished(url, (await accept(url, 'a,b\n1,2\n')).id)
    expect(socket.filter(([name]) => name === 'report.finished').length).toBe(1)
    expect(socket.at(-1)).toEqual(['report.finished', { id: report.id, state: 'cancelled' }])
    expect((await readReport(url, report.id)).state).toBe('cancelled')
  })

  test('what has finished leaves it as it is, without its upload', async () => {
    const { url, reportDirectory } = await useService()
    const { id } = await accept(url, 'a,b\n1,2\n')
    await untilFinished(url, id)
    for (let time = 0; time < 2; time++) {
      const { status, body } = await request(`${url}/v1/reports/${id}`, 'DELETE')
      expect([status, body.state, body.result.rows]).toEqual([202, 'succeeded', 1])
    }
    expect(filesIn(reportDirectory)).toEqual([])
  })
})

describe('cancelling the job of a report', () => {
  test('keeps its upload for a while, so that it can be retried', async () => {
    const { url } = await useService()
    const { id } = await accept(url, slowCsv(12), { query: '?groupBy=word&value=number' })
    expect((await request(`${url}/v1/jobs/${id}`, 'DELETE')).body.state).toBe('cancelled')
    expect((await readReport(url, id)).state).toBe('cancelled')
    expect((await request(`${url}/v1/jobs/${id}/retry`, 'POST')).status).toBe(202)
    expect((await untilFinished(url, id, 60_000)).state).toBe('succeeded')
  }, 90_000)
})

describe('events', () => {
  test('go from how it is to its finish, over SSE as over Socket.IO', async () => {
    const { url } = await useService()
    const { id } = await accept(url, slowCsv(12), { query: '?groupBy=word&value=number' })
    const [socket, stream] = [await listen(url, id), await eventsOf(url, id)]
    await until(() => socket.at(-1)?.[0] === 'report.finished', 'the socket hears the end')
    for (const events of [stream, socket]) {
      expect(events.at(-1)).toEqual(['report.finished', { id, state: 'succeeded' }])
      const fractions = events
        .slice(0, -1)
        .map(([name, data]) => (name === 'report.progress' ? Number(data['progress']) : Number.NaN))
      expect(fractions.length).toBeGreaterThan(1)
      expect(fractions).toEqual(fractions.toSorted((a, b) => a - b))
    }
  }, 60_000)

  test('of a report that has finished are its finish', async () => {
    const { id } = await accept(url, 'a,b\n1,2\n')
    await untilFinished(url, id)
    expect(await eventsOf(url, id)).toEqual([['report.finished', { id, state: 'succeeded' }]])
  })

  test('of a report that has finished are 204 for a client that has seen its finish, so that it does not ask again', async () => {
    const { id } = await accept(url, 'a,b\n1,2\n')
    const seen = await (await openEvents(url, id)).text()
    const headers = { 'last-event-id': seen.match(/^id: (.*)$/m)?.[1] ?? '' }
    expect(
      (await request(`${url}/v1/reports/${id}/events`, 'GET', undefined, headers)).status,
    ).toBe(204)
  })

  test('go to each of many that watch, also to those that come while others watch already', async () => {
    const { url, database } = await useService({ JOBS_QUEUES: 'off' })
    const { id } = await accept(url, 'a,b\n1,2\n')
    const streams = [eventsOf(url, id)]
    for (let client = 0; client < 5; client++) streams.push(eventsOf(url, id))
    await database
      .withSignal()
      .updateTable('job')
      .set({ state: 'succeeded' })
      .where('id', '=', id)
      .execute()
    for (const events of await Promise.all(streams)) {
      expect(events.filter(([name]) => name === 'report.finished')).toEqual([
        ['report.finished', { id, state: 'succeeded' }],
      ])
    }
  })

  test('end when the service stops', async () => {
    const { url, stop } = await useService({ JOBS_QUEUES: 'off' })
    const { id } = await accept(url, 'a,b\n1,2\n')
    const stream = await openEvents(url, id)
    const stopping = performance.now()
    const [text] = await Promise.all([stream.text(), stop()])
    expect(performance.now() - stopping).toBeLessThan(5_000)
    expect(text).not.toContain('event: report.finished')
  })
})

type Heard = [name: string, data: Record<string, unknown>]

/** All that is heard of a report over Socket.IO. */
async function listen(url: string, id: string): Promise<Heard[]> {
  const socket: Socket<ServerEvents<typeof features>, ClientEvents> = io(url, {
    transports: ['websocket'],
    reconnection: false,
    forceNew: true,
    ...OPERATOR_AUTH,
  })
  onTestFinished(() => void socket.close())
  const heard: Heard[] = []
  socket.on('report.progress', (data) => heard.push(['report.progress', { ...data }]))
  socket.on('report.finished', (data) => heard.push(['report.finished', data]))
  expect(await socket.emitWithAck('subscribe', `report:${id}`)).toEqual({ ok: true })
  return heard
}

/** All events of a report's stream, once it has ended. */
async function eventsOf(url: string, id: string): Promise<Heard[]> {
  const text = await (await openEvents(url, id)).text()
  return [...text.matchAll(/^event: (.*)\ndata: (.*)$/gm)].map(([, name = '', data = '']) => [
    name,
    JSON.parse(data),
  ])
}

/** Resolves when the service has begun to send a report's events. */
async function openEvents(url: string, id: string): Promise<Response> {
  const response = await fetch(`${url}/v1/reports/${id}/events`, { headers: AS_OPERATOR })
  expect(response.headers.get('content-type')).toBe('text/event-stream')
  return response
}

async function answerOn(socket: Awaited<ReturnType<typeof connectTo>>): Promise<string> {
  let answer = ''
  socket.on('error', () => {})
  for await (const chunk of socket) {
    answer += chunk
    if (answer.includes('\r\n\r\n')) break
  }
  return answer
}
