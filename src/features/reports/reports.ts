import { createHash, randomUUID } from 'node:crypto'
import { JobError } from '@offloop/jobs/errors'
import { isFinished } from '@offloop/jobs/job'
import type { Jobs } from '@offloop/jobs/jobs'
import type { Db } from '../../db/database.ts'
import { transaction } from '../../db/transaction.ts'
import { AppError } from '../../errors.ts'
import { type PageRequest, Pager } from '../../http/pagination.ts'
import { toTimestamp } from '../../timestamp.ts'
import { buildReport, isSmall, type ReportState, type SummaryOptions } from './contract.ts'
import * as queries from './queries.ts'
import type { Report, ReportBrief, ReportPage } from './schema.ts'
import type { Storage } from './storage.ts'

const pager = new Pager('id', /[0-9a-f-]{36}/)

export interface ReportDeps {
  jobs: Jobs
  storage: Storage
}

/** What somebody wants summarised. */
export interface NewReport extends SummaryOptions {
  body: AsyncIterable<Uint8Array>
  /** How many bytes the body will have, where that is known. */
  expectedBytes: number | undefined
  idempotencyKey: string | null
  requestId: string
}

/**
 * Keeps an upload and puts its report into the queue. A repeat under the same Idempotency-Key is
 * answered with the first report, once its bytes are known to be the same.
 *
 * @param open gives a database handle; called again after the upload, which may take long.
 * @throws AppError `conflict` for a key that was used for something else; `storage_full`; what the
 * body throws.
 */
export async function createReport(
  deps: ReportDeps,
  open: () => Db,
  request: NewReport,
): Promise<Report> {
  const { body, expectedBytes, idempotencyKey, groupBy, value, delimiter } = request
  const first =
    idempotencyKey === null ? undefined : await queries.findByKey(open(), idempotencyKey)
  if (first) return repeat(open, request, await discard(body))

  const key = randomUUID()
  const meter = new Meter(body)
  await deps.storage.save(key, meter, expectedBytes)
  const upload = {
    upload: key,
    bytes: meter.bytes,
    sha256: meter.sha256,
    groupBy,
    value,
    delimiter,
  }
  try {
    return await commitReport(deps, open(), upload, request)
  } catch (error) {
    if (queries.isKeyTaken(error)) return repeat(open, request, upload.sha256)
    throw error
  }
}

/**
 * The report and its job in one transaction, whose outcome alone decides whether the upload stays.
 * The answer is read within it, so that nothing can fail after the commit.
 */
async function commitReport(
  { jobs, storage }: ReportDeps,
  db: Db,
  upload: queries.Upload,
  { idempotencyKey, requestId }: NewReport,
): Promise<Report> {
  let mayBeCommitted = false
  try {
    return await transaction(db, async (trx) => {
      mayBeCommitted = false
      const { id } = await jobs.enqueue(trx, buildReport, null, {
        requestId,
        priority: isSmall(upload.bytes) ? 0 : 1,
      })
      await queries.insertReport(trx, id, upload, idempotencyKey)
      const report = await getReport(trx, id)
      mayBeCommitted = true
      return report
    })
  } catch (error) {
    // A commit without an answer may have happened: then the report needs its upload. Otherwise the
    // sweep removes it.
    if (!mayBeCommitted) await storage.remove(upload.upload)
    throw error
  }
}

/** @throws AppError `not_found`. */
export async function getReport(db: Db, id: string): Promise<Report> {
  const { result, upload, ...row } = (await queries.findRow(db, id)) ?? missing(id)
  return {
    ...toBrief(row),
    ...(row.state === 'succeeded' && result !== null && { result: JSON.parse(result) }),
  }
}

/** One page, newest first. @throws AppError `invalid` when the cursor is not one of ours. */
export function listReports(db: Db, page: PageRequest): Promise<ReportPage> {
  return pager.read(page, async (before, limit) =>
    (await queries.listRows(db, { limit, before })).map(toBrief),
  )
}

/**
 * Cancels a report that is not finished, and removes its upload in any case; the report itself
 * stays to be read.
 *
 * @throws AppError `not_found`.
 */
export async function cancelReport(
  { jobs, storage }: ReportDeps,
  db: Db,
  id: string,
): Promise<Report> {
  const { state, upload } = (await queries.findRow(db, id)) ?? missing(id)
  if (!isFinished(state)) await jobs.cancel(db, id).catch(unlessFinished)
  if (upload !== null) await removeUpload(storage, db, id, upload)
  return getReport(db, id)
}

async function removeUpload(storage: Storage, db: Db, id: string, upload: string): Promise<void> {
  await queries.forgetUploads(db, [id])
  await storage.remove(upload)
}

/** It finished a moment before it could be cancelled. */
function unlessFinished(error: unknown) {
  if (!(error instanceof JobError && error.code === 'conflict')) throw error
}

/** The first report under the key, for one who sends the same again. */
async function repeat(open: () => Db, request: NewReport, sha256: string): Promise<Report> {
  const db = open()
  const first =
    (await queries.findByKey(db, request.idempotencyKey ?? '')) ??
    missing('under this key any more')
  const isSame = (['groupBy', 'value', 'delimiter'] as const).every(
    (option) => first[option] === request[option],
  )
  if (first.sha256 !== sha256 || !isSame)
    throw new AppError(
      'conflict',
      'This Idempotency-Key was used for another file, or other columns or delimiter',
    )
  return getReport(db, first.id)
}

/**
 * Reads to the end for the hash alone: a client that is not let finish may never read its answer.
 */
async function discard(body: AsyncIterable<Uint8Array>): Promise<string> {
  const meter = new Meter(body)
  for await (const _ of meter);
  return meter.sha256
}

/** Passes bytes on, and knows how many they were and their hash. */
class Meter implements AsyncIterable<Uint8Array> {
  bytes = 0
  readonly #source: AsyncIterable<Uint8Array>
  readonly #hash = createHash('sha256')

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source
  }

  /** Once, at the end. */
  get sha256(): string {
    return this.#hash.copy().digest('hex')
  }

  async *[Symbol.asyncIterator]() {
    for await (const chunk of this.#source) {
      this.bytes += chunk.byteLength
      this.#hash.update(chunk)
      yield chunk
    }
  }
}

const toBrief = ({
  state,
  createdAt,
  startedAt,
  finishedAt,
  ...row
}: queries.ReportRow): ReportBrief => ({
  ...row,
  state: toReportState(state),
  bytes: Number(row.bytes),
  createdAt: toTimestamp(createdAt),
  startedAt: startedAt && toTimestamp(startedAt),
  finishedAt: finishedAt && toTimestamp(finishedAt),
})

/** One that waits for its next attempt is in the queue, as far as its owner cares. */
export const toReportState = (state: queries.ReportRow['state']): ReportState =>
  state === 'scheduled' ? 'queued' : state

function missing(id: string): never {
  throw new AppError('not_found', `There is no report ${id}`)
}
