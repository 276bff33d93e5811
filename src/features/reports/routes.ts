import { createRoute, z } from '@hono/zod-openapi'
import type { Database } from '../../db/database.ts'
import { AppError } from '../../errors.ts'
import type { AppContext } from '../../http/env.ts'
import { eventStream } from '../../http/event-stream.ts'
import { requestIdOf, signalOf } from '../../http/exchange.ts'
import { createRouter, json } from '../../http/router.ts'
import { receiveUpload } from '../../http/upload.ts'
import type { Jobs } from '../../jobs/jobs.ts'
import type { Log } from '../../log.ts'
import type { Realtime } from '../../realtime/realtime.ts'
import { reportFinished, reportProgress } from './contract.ts'
import { ReportFeed } from './feed.ts'
import { groupsCsv } from './groups-csv.ts'
import { cancelReport, createReport, getReport, listReports } from './reports.ts'
import { NewReportHeaders, NewReportQuery, PageQuery, Report, ReportId, ReportPage, ReportQuery } from './schema.ts'
import type { Storage } from './storage.ts'

const MAX_UPLOAD_BYTES = 1024 ** 3

interface RouteDeps {
  database: Database
  jobs: Jobs
  realtime: Realtime
  storage: Storage
  log: Log
  stopping: AbortSignal
}

/** `/v1/reports`: uploads that jobs summarise. */
export function reportRoutes(deps: RouteDeps) {
  const { database, stopping } = deps
  const router = createRouter()
  const feed = new ReportFeed(deps)
  const open = (c: AppContext) => database.withSignal(signalOf(c))

  router.openapi(create, async (c) => {
    assertCsv(c)
    const { groupBy = null, value = null, delimiter = null } = c.req.valid('query')
    const report = await createReport(deps, () => open(c), {
      body: receiveUpload(c, MAX_UPLOAD_BYTES),
      idempotencyKey: c.req.valid('header')['idempotency-key'] ?? null,
      requestId: requestIdOf(c),
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
    return c.body(groupsCsv(report), 200, headers) as never
  })

  router.openapi(cancel, async (c) => {
    const { id } = c.req.valid('param')
    return c.json(await cancelReport(deps, open(c), id, signalOf(c)), 202, { Location: `/v1/reports/${id}` })
  })

  router.openapi(events, async (c) => {
    const { id } = await getReport(open(c), c.req.valid('param').id)
    return eventStream(c, stopping, ({ latest, last }) =>
      feed.watch(id, {
        progress: (news) => latest(reportProgress.name, news),
        finished: (news) => last(reportFinished.name, news),
      }),
    ) as never
  })

  return router
}

/** @throws AppError `unsupported_media_type`. */
function assertCsv({ req }: AppContext) {
  const type = req.header('content-type')?.split(';')[0]?.trim().toLowerCase()
  if (type !== 'text/csv') throw new AppError('unsupported_media_type', 'Send the body as text/csv')
  const encoding = req.header('content-encoding')?.trim().toLowerCase() ?? 'identity'
  if (encoding !== 'identity' && encoding !== 'gzip')
    throw new AppError('unsupported_media_type', 'Send the body as it is or with Content-Encoding: gzip')
}

const tags = ['reports']
const text = (description: string, type: string) => ({ description, content: { [type]: { schema: z.string() } } })
const located = { headers: z.object({ Location: z.string() }) }

const create = createRoute({
  method: 'post',
  path: '/',
  tags,
  summary: 'Have a CSV file summarised',
  description: `In UTF-8 by RFC 4180, with names in its first row, up to ${MAX_UPLOAD_BYTES / 1024 ** 2} MiB as sent. It may be gzip, and hold
    twice as much. The answer comes when all of it has arrived; the summary is made after that, by a job.`,
  request: {
    query: NewReportQuery,
    headers: NewReportHeaders,
    body: { required: true, content: { 'text/csv': { schema: z.string().openapi({ format: 'binary' }) } } },
  },
  responses: {
    202: { ...json(Report, 'Accepted'), ...located },
    413: { description: 'The upload is too large' },
    415: { description: 'It is not `text/csv`' },
    507: { description: 'There is no room for it' },
  },
})

const list = createRoute({
  method: 'get',
  path: '/',
  tags,
  summary: 'List reports, newest first',
  request: { query: PageQuery },
  responses: { 200: json(ReportPage, 'One page, without results') },
})

const read = createRoute({
  method: 'get',
  path: '/{id}',
  tags,
  summary: 'Read a report, with its result once it has succeeded',
  request: { params: ReportId, query: ReportQuery },
  responses: { 200: { description: 'The report', content: { ...json(Report, '').content, ...text('', 'text/csv').content } } },
})

const cancel = createRoute({
  method: 'delete',
  path: '/{id}',
  tags,
  summary: 'Cancel a report',
  description: 'One that has finished stays as it is. Its upload is removed in any case.',
  request: { params: ReportId },
  responses: { 202: { ...json(Report, 'Cancelled, or finished already'), ...located } },
})

const events = createRoute({
  method: 'get',
  path: '/{id}/events',
  tags,
  summary: 'Follow a report',
  description: `Server-Sent Events, the same as over Socket.IO under the topic \`report:{id}\`: \`report.progress\` with
    \`{ id, state, progress, note, attempt }\`, beginning with how it is now, and at the end \`report.finished\` with \`{ id, state }\`.`,
  request: { params: ReportId },
  responses: { 200: text('Until the report has finished', 'text/event-stream') },
})
