import { join } from 'node:path'
import { createRoute, z } from '@hono/zod-openapi'
import { isFinished } from '@offloop/jobs/job'
import { AppError } from '../../errors.ts'
import { type Deps, feature } from '../../feature.ts'
import { declaredBytes, receiveUpload } from '../../http/body.ts'
import { type AppContext, getContext } from '../../http/context.ts'
import { createRouter, json } from '../../http/router.ts'
import { eventStream, hasSeenLast } from '../../http/sse.ts'
import { REPORT_TOPIC, reportFinished, reportProgress, topicOf } from './contract.ts'
import { ReportFeed, toProgress } from './feed.ts'
import { groupsCsv } from './groups-csv.ts'
import { reportJobs, reportSchedules } from './jobs.ts'
import { readChanges } from './queries.ts'
import { cancelReport, createReport, getReport, listReports } from './reports.ts'
import {
  NewReportHeaders,
  NewReportQuery,
  PageQuery,
  Report,
  ReportId,
  ReportPage,
  ReportQuery,
} from './schema.ts'
import { DirectoryStorage } from './storage.ts'

const MAX_UPLOAD_BYTES = 1024 ** 3
/** How every gzip begins. */
const GZIP_MAGIC = Buffer.from([0x1f, 0x8b])

/** Uploads that jobs summarise. */
export const reports = feature({
  name: 'reports',
  path: '/v1/reports',
  routes: (deps) => reportRoutes({ ...deps, storage: openStorage(deps) }),
  jobs: (deps) => {
    const { directory, memoryMb } = deps.config.reports
    const spillDirectory = join(directory, 'spill')
    return reportJobs({ ...deps, storage: openStorage(deps), spillDirectory, memoryMb })
  },
  schedules: reportSchedules,
  topics: [REPORT_TOPIC],
  events: [reportProgress, reportFinished],
  start(deps) {
    const feed = new ReportFeed(deps)
    return () => feed.close()
  },
  usesDatabase: true,
  takesUploads: true,
  example: true,
  migrations: ['003-report', '004-report-delimiter'],
})

const openStorage = ({ config }: Deps) =>
  new DirectoryStorage(join(config.reports.directory, 'uploads'))

function reportRoutes(deps: Deps & { storage: DirectoryStorage }) {
  const { database, realtime, stopping } = deps
  const router = createRouter()
  const open = (c: AppContext) => database.withSignal(getContext(c).signal)

  router.openapi(create, async (c) => {
    const { isGzip } = assertCsv(c)
    const body = receiveUpload(c, MAX_UPLOAD_BYTES)
    const { groupBy = null, value = null, delimiter = null } = c.req.valid('query')
    const report = await createReport(deps, () => open(c), {
      body: isGzip ? expectGzip(body) : body,
      expectedBytes: declaredBytes(c),
      idempotencyKey: c.req.valid('header')['idempotency-key'] ?? null,
      requestId: getContext(c).requestId,
      groupBy,
      value,
      delimiter,
    })
    return c.json(report, 202, { Location: `/v1/reports/${report.id}` })
  })

  router.openapi(list, async (c) => c.json(await listReports(open(c), c.req.valid('query')), 200))

  router.openapi(read, async (c) => {
    const report = await getReport(open(c), c.req.valid('param').id)
    if (c.req.valid('query').format === 'json') return c.json(report, 200)
    const headers = {
      'Content-Type': 'text/csv; charset=utf-8',
      'Content-Disposition': `attachment; filename="${report.id}.csv"`,
    }
    return c.body(groupsCsv(report), 200, headers)
  })

  router.openapi(cancel, async (c) => {
    const { id } = c.req.valid('param')
    return c.json(await cancelReport(deps, open(c), id), 202, {
      Location: `/v1/reports/${id}`,
    })
  })

  router.openapi(events, async (c) => {
    const db = open(c)
    const { id, state } = await getReport(db, c.req.valid('param').id)
    if (isFinished(state) && hasSeenLast(c)) return c.body(null, 204)
    return eventStream(c, stopping, ({ latest, last, end }) => {
      let isCurrent = false
      const send = (name: string, payload: unknown) => {
        isCurrent = true
        if (name === reportFinished.name) last(name, payload)
        else latest(name, payload)
      }
      // Read only now: a change between a read and the subscription would be missed.
      readChanges(db, [id])
        .then(([change]) => {
          if (isCurrent || !change) return
          const progress = toProgress(change)
          if (isFinished(change.state)) send(reportFinished.name, { id, state: progress.state })
          else send(reportProgress.name, progress)
        })
        .catch(end)
      return realtime.listen(topicOf(id), send)
    })
  })

  return router
}

/**
 * Whether the body is compressed. @throws AppError `unsupported_media_type` for what is no CSV, or
 * compressed otherwise.
 */
function assertCsv({ req }: AppContext): { isGzip: boolean } {
  const type = req.header('content-type')?.split(';')[0]?.trim().toLowerCase()
  if (type !== 'text/csv') throw new AppError('unsupported_media_type', 'Send the body as text/csv')
  const encoding = req.header('content-encoding')?.trim().toLowerCase() || 'identity'
  if (!['identity', 'gzip', 'x-gzip'].includes(encoding))
    throw new AppError(
      'unsupported_media_type',
      'Send the body as it is or with Content-Encoding: gzip',
      {
        headers: { 'Accept-Encoding': 'gzip, identity' },
      },
    )
  return { isGzip: encoding !== 'identity' }
}

/**
 * Passes on a body that says of itself that it is gzip. @throws AppError `bad_request` for one that
 * is not.
 */
async function* expectGzip(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let head = Buffer.alloc(0)
  const isGzip = () => head.equals(GZIP_MAGIC.subarray(0, head.length))
  for await (const chunk of body) {
    if (head.length < GZIP_MAGIC.length)
      head = Buffer.concat([head, chunk]).subarray(0, GZIP_MAGIC.length)
    if (!isGzip()) throw notGzip()
    yield chunk
  }
  if (head.length < GZIP_MAGIC.length) throw notGzip()
}

const notGzip = () =>
  new AppError('bad_request', 'The body is not gzip, although Content-Encoding says so')

const tags = ['reports']
const text = { schema: z.string() }
const located = { headers: z.object({ Location: z.string() }) }

const create = createRoute({
  method: 'post',
  path: '/',
  tags,
  operationId: 'createReport',
  summary: 'Have a CSV file summarised',
  description: `In UTF-8 by RFC 4180, with names in its first row, up to ${MAX_UPLOAD_BYTES / 1024 ** 2} MiB as sent. It may be gzip, and hold
    twice as much. The answer comes when all of it has arrived; the summary is made after that, by a job.`,
  request: {
    query: NewReportQuery,
    headers: NewReportHeaders,
    body: {
      required: true,
      content: { 'text/csv': { schema: z.string().openapi({ format: 'binary' }) } },
    },
  },
  responses: {
    202: { ...json(Report, 'Accepted'), ...located },
    408: { description: 'The upload stalled' },
    409: { description: 'The `Idempotency-Key` was used with another upload or query' },
    413: { description: 'The upload is too large' },
    400: { description: 'It is not gzip, although `Content-Encoding` says so' },
    415: { description: 'It is not `text/csv`, or compressed in another way than by gzip' },
    507: { description: 'There is no room for it' },
  },
})

const list = createRoute({
  method: 'get',
  path: '/',
  tags,
  operationId: 'listReports',
  summary: 'List reports, newest first',
  request: { query: PageQuery },
  responses: { 200: json(ReportPage, 'One page, without results') },
})

const read = createRoute({
  method: 'get',
  path: '/{id}',
  tags,
  operationId: 'readReport',
  summary: 'Read a report, with its result once it has succeeded',
  request: { params: ReportId, query: ReportQuery },
  responses: {
    200: {
      description: 'The report',
      content: { ...json(Report, '').content, 'text/csv': text },
    },
    409: { description: '`format=csv` of a report without groups' },
  },
})

const cancel = createRoute({
  method: 'delete',
  path: '/{id}',
  tags,
  operationId: 'cancelReport',
  summary: 'Cancel a report',
  description: 'One that has finished stays as it is. Its upload is removed in any case.',
  request: { params: ReportId },
  responses: { 202: { ...json(Report, 'Cancelled, or finished already'), ...located } },
})

const events = createRoute({
  method: 'get',
  path: '/{id}/events',
  tags,
  operationId: 'followReport',
  summary: 'Follow a report',
  description: `Server-Sent Events, the same as over Socket.IO under the topic \`report:{id}\`: \`report.progress\` with
    \`{ id, state, progress, note, attempt }\`, beginning with how it is now, and at the end \`report.finished\` with \`{ id, state }\`.
    An \`EventSource\` connects again whenever a stream ends. Close it on \`report.finished\`; otherwise it is answered 204 when
    it connects again, because it sends the id of that event as \`Last-Event-ID\`, and stops.`,
  request: { params: ReportId },
  responses: {
    200: {
      description: 'Until the report has finished',
      content: { 'text/event-stream': text },
    },
    204: { description: 'The report has finished, and the client has seen `report.finished`' },
  },
})
