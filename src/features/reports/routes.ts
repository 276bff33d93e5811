import { join } from 'node:path'
import { z } from '@hono/zod-openapi'
import { handle, isFinished, job, schedule } from '@offloop/jobs/job'
import { AppError } from '../../errors.ts'
import { type Deps, feature } from '../../feature.ts'
import { declaredBytes, receiveUpload } from '../../http/body.ts'
import { type AppContext, expectSubject, getContext } from '../../http/context.ts'
import { PageQuery } from '../../http/pagination.ts'
import { createRouter, json, withHeaders } from '../../http/router.ts'
import { hasSeenLast } from '../../http/sse.ts'
import type { Log } from '../../log.ts'
import {
  buildReport,
  REPORT_TOPIC,
  Report,
  ReportPage,
  reportFinished,
  reportProgress,
  toReportId,
} from './contract.ts'
import { DELIMITER } from './csv.ts'
import { publishReports, streamReport } from './feed.ts'
import { summariseUpload, sweep } from './jobs.ts'
import {
  cancelReport,
  canRead,
  createReport,
  getReport,
  listReports,
  toGroupsCsv,
} from './reports.ts'
import { S3Storage } from './s3.ts'
import { DirectoryStorage, Quota } from './storage.ts'

const MAX_UPLOAD_BYTES = 1024 ** 3
const GZIP_MAGIC = Buffer.from([0x1f, 0x8b])

const sweepReports = job<null>('report.sweep')

export const reports = feature({
  name: 'reports',
  path: '/v1/reports',
  routes: reportRoutes,
  jobs(deps) {
    const { directory, memoryMb } = deps.config.reports
    const jobDeps = {
      ...deps,
      storage: openStorage(deps),
      spillDirectory: join(directory, 'spill'),
      memoryMb,
    }
    return [
      handle(buildReport, (_, context) => summariseUpload(jobDeps, context)),
      handle(sweepReports, (_, { signal }) => sweep(jobDeps, signal)),
    ]
  },
  schedules: [schedule('report.sweep', '41 * * * *', sweepReports, null)],
  topics: [
    {
      name: REPORT_TOPIC,
      access: 'reports:read',
      allows({ config, database }, subject, topic) {
        const db = database.withSignal(AbortSignal.timeout(config.http.requestTimeoutMs))
        return canRead(db, toReportId(topic), subject)
      },
    },
  ],
  events: [reportProgress, reportFinished],
  async start(deps) {
    const storage = openStorage(deps)
    if (storage instanceof S3Storage) await storage.check().catch(unlessUnavailable(deps.log))
    return publishReports(deps)
  },
  usesDatabase: true,
  takesUploads: true,
  example: true,
  migrations: ['003-report', '004-report-delimiter', '006-report-owner'],
})

const openStorage = ({ config: { reports } }: Deps) =>
  reports.s3 ? new S3Storage(reports.s3) : new DirectoryStorage(join(reports.directory, 'uploads'))

const unlessUnavailable = (log: Log) => (error: AppError) => {
  if (error.code !== 'unavailable') throw error
  log.warn({ err: error }, error.message)
}

const ColumnName = z.string().min(1).max(200).optional()

const NewReportQuery = z
  .strictObject({
    groupBy: ColumnName.describe('The column to count rows by').openapi({ example: 'region' }),
    value: ColumnName.describe('The column of numbers to sum up in each group').openapi({
      example: 'total',
    }),
    delimiter: z
      .string()
      .regex(DELIMITER, 'One character of ASCII that is no letter, digit or quote, or `tab`')
      .transform((delimiter) => (delimiter === 'tab' ? '\t' : delimiter))
      .optional()
      .openapi({
        description: `The character between the fields of a row, or \`tab\`. If absent, the file
          names it (\`sep=;\`), or the one of \`, ; tab |\` that divides the most rows alike`,
        example: ';',
      }),
  })
  .refine(({ groupBy, value }) => value === undefined || groupBy !== undefined, {
    path: ['value'],
    message: 'Give groupBy, too: the column to sum up by',
  })

const NewReportHeaders = z.object({
  'idempotency-key': z
    .string()
    .regex(/^[\x21-\x7e]{1,200}$/, 'At most 200 characters of ASCII, without spaces')
    .optional()
    .describe('A repeat with the same key is answered with the first report'),
  'content-encoding': z.string().optional().describe('`gzip`, if it is'),
})

const ReportId = z.strictObject({
  id: z.uuid().toLowerCase().openapi({ example: '01981c5e-5f0a-7c4e-9a54-6b1d5b0d8a11' }),
})

const ReportQuery = z.strictObject({
  format: z.enum(['json', 'csv']).default('json').describe('`csv`: the groups alone'),
})

const text = { schema: z.string() }

function reportRoutes(deps: Deps) {
  const router = createRouter()
  const reportDeps = { jobs: deps.jobs, storage: openStorage(deps), quota: new Quota() }
  const open = (c: AppContext) => deps.database.withSignal(getContext(c).signal)

  router.openapi({
    method: 'post',
    path: '/',
    operationId: 'createReport',
    access: 'reports:write',
    limit: 'upload',
    summary: 'Have a CSV file summarised',
    description: `In UTF-8 by RFC 4180, with names in its first row, up to
        ${MAX_UPLOAD_BYTES / 1024 ** 2} MiB as sent. It may be gzip, and hold twice as much. The
        answer comes when all of it has arrived; a job makes the summary after that.`,
    request: {
      query: NewReportQuery,
      headers: NewReportHeaders,
      body: {
        required: true,
        content: { 'text/csv': { schema: z.string().openapi({ format: 'binary' }) } },
      },
    },
    responses: {
      202: withHeaders(json(Report, 'Accepted'), 'Location'),
      408: { description: 'The upload stalled' },
      409: { description: 'The `Idempotency-Key` was used with another upload or query' },
      413: { description: 'The upload is too large' },
      400: { description: 'It is not gzip, although `Content-Encoding` says so' },
      415: { description: 'It is not `text/csv`, or compressed in another way than by gzip' },
      507: { description: 'There is no room for it' },
    },
    handler: async (c) => {
      const isGzip = checkEncoding(c)
      const body = receiveUpload(c, MAX_UPLOAD_BYTES)
      const { groupBy = null, value = null, delimiter = null } = c.req.valid('query')
      const report = await createReport(reportDeps, () => open(c), {
        body: isGzip ? expectGzip(body) : body,
        expectedBytes: declaredBytes(c),
        maxBytes: MAX_UPLOAD_BYTES,
        idempotencyKey: c.req.valid('header')['idempotency-key'] ?? null,
        requestId: getContext(c).requestId,
        owner: expectSubject(c),
        isLimited: getContext(c).isLimited,
        groupBy,
        value,
        delimiter,
      })
      return c.json(report, 202, { Location: `/v1/reports/${report.id}` })
    },
  })

  router.openapi({
    method: 'get',
    path: '/',
    operationId: 'listReports',
    access: 'reports:read',
    summary: 'List your reports, newest first; operators get all',
    request: { query: PageQuery },
    responses: { 200: json(ReportPage, 'One page, without results') },
    handler: async (c) =>
      c.json(await listReports(open(c), expectSubject(c), c.req.valid('query')), 200),
  })

  router.openapi({
    method: 'get',
    path: '/{id}',
    operationId: 'readReport',
    access: 'reports:read',
    summary: 'Read a report, with its result once it has succeeded',
    request: { params: ReportId, query: ReportQuery },
    responses: {
      200: {
        description: 'The report',
        content: { 'application/json': { schema: Report }, 'text/csv': text },
      },
      409: { description: '`format=csv` of a report without groups' },
    },
    handler: async (c) => {
      const report = await getReport(open(c), c.req.valid('param').id, expectSubject(c))
      if (c.req.valid('query').format === 'json') return c.json(report, 200)
      return c.body(toGroupsCsv(report), 200, {
        'Content-Type': 'text/csv; charset=utf-8',
        'Content-Disposition': `attachment; filename="${report.id}.csv"`,
      })
    },
  })

  router.openapi({
    method: 'delete',
    path: '/{id}',
    operationId: 'cancelReport',
    access: 'reports:write',
    summary: 'Cancel a report',
    description: 'One that has finished stays as it is. Its upload is removed in any case.',
    request: { params: ReportId },
    responses: { 202: withHeaders(json(Report, 'Cancelled, or finished already'), 'Location') },
    handler: async (c) => {
      const { id } = c.req.valid('param')
      const { signal } = getContext(c)
      const report = await cancelReport(reportDeps, open(c), id, expectSubject(c), signal)
      return c.json(report, 202, { Location: `/v1/reports/${id}` })
    },
  })

  router.openapi({
    method: 'get',
    path: '/{id}/events',
    operationId: 'followReport',
    access: 'reports:read',
    summary: 'Follow a report',
    description: `Server-Sent Events, the same as over Socket.IO under the topic \`report:{id}\`:
        \`report.progress\` with \`{ id, state, progress, note, attempt }\`, beginning with the
        present state, and at the end \`report.finished\` with \`{ id, state }\`. An \`EventSource\`
        reconnects whenever a stream ends. Close it on \`report.finished\`; otherwise it gets a 204
        when it reconnects, because it sends that event's id as \`Last-Event-ID\`, and stops.`,
    request: { params: ReportId },
    responses: {
      200: {
        description: 'Until the report has finished',
        content: { 'text/event-stream': text },
      },
      204: {
        description: 'The report has finished, and the client has seen `report.finished`',
      },
    },
    handler: async (c) => {
      const db = open(c)
      const { id, state } = await getReport(db, c.req.valid('param').id, expectSubject(c))
      if (isFinished(state) && hasSeenLast(c)) return c.body(null, 204)
      return streamReport(c, deps, db, id)
    },
  })

  return router
}

/** Returns whether the body is gzip. @throws AppError `unsupported_media_type`. */
function checkEncoding({ req }: AppContext): boolean {
  const type = req.header('content-type')?.split(';')[0]?.trim().toLowerCase()
  if (type !== 'text/csv') throw new AppError('unsupported_media_type', 'Send the body as text/csv')
  const encoding = req.header('content-encoding')?.trim().toLowerCase() || 'identity'
  if (!['identity', 'gzip', 'x-gzip'].includes(encoding))
    throw new AppError('unsupported_media_type', 'Send the body as it is, or as gzip', {
      headers: { 'Accept-Encoding': 'gzip, identity' },
    })
  return encoding !== 'identity'
}

/** @throws AppError `bad_request` if the body is not gzip. */
async function* expectGzip(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let start = Buffer.alloc(0)
  for await (const chunk of body) {
    start = Buffer.concat([start, chunk.subarray(0, GZIP_MAGIC.length - start.length)])
    if (!start.equals(GZIP_MAGIC.subarray(0, start.length))) break
    yield chunk
  }
  if (!start.equals(GZIP_MAGIC))
    throw new AppError('bad_request', 'The body is not gzip, although Content-Encoding says so')
}
