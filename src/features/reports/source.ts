import { closeSync, createReadStream, openSync, readSync } from 'node:fs'
import { constants, createGunzip, gunzipSync } from 'node:zlib'
import type { TaskContext } from '../../compute/implement.ts'
import { literal } from './duck.ts'

const HEAD_BYTES = 64 * 1024
const UNZIP_BYTES = 1024 * 1024

/** The file cannot be summarised, for a reason that its owner understands. */
export class Unreadable extends Error {
  override readonly name = 'Unreadable'
}

/**
 * DuckDB reads 32 MB at once unless told otherwise, and a kernel that is not preemptible does nothing else on that core
 * meanwhile: the light endpoint's p99 was some four times the idle one, and is less than twice that with these.
 */
const LIMITS = ['max_line_size = 1_000_000', 'buffer_size = 2_097_152']
/** More than anybody means to summarise: a small gzip file can hold terabytes. */
const MAX_UNZIPPED_BYTES = 32 * 1024 ** 3

/**
 * The SQL that reads a CSV file: its first row has the names, and rows that do not parse go to the table `reject_errors`.
 *
 * @throws Unreadable for what is no CSV, as far as its first bytes tell.
 */
export async function csvSource(file: string, context: TaskContext): Promise<string> {
  const head = readHead(file)
  const isGzip = head[0] === 0x1f && head[1] === 0x8b
  assertText(isGzip ? unzipHead(head) : head)
  if (isGzip) await assertIntact(file, context)
  const options = ['header = true', 'store_rejects = true', `compression = '${isGzip ? 'gzip' : 'none'}'`]
  return `read_csv(${literal(file)}, ${[...options, ...LIMITS].join(', ')})`
}

function readHead(file: string): Buffer {
  const descriptor = openSync(file, 'r')
  try {
    const head = Buffer.alloc(HEAD_BYTES)
    return head.subarray(0, readSync(descriptor, head))
  } finally {
    closeSync(descriptor)
  }
}

function unzipHead(head: Buffer): Buffer {
  try {
    return gunzipSync(head, { finishFlush: constants.Z_SYNC_FLUSH })
  } catch {
    throw new Unreadable('The file begins like gzip but cannot be unzipped')
  }
}

/** DuckDB takes the part of a gzip file that it can read for all of it. */
async function assertIntact(file: string, context: TaskContext): Promise<void> {
  let bytes = 0
  const zipped = createReadStream(file)
  const unzipped = zipped.pipe(createGunzip({ chunkSize: UNZIP_BYTES }))
  zipped.on('error', (error) => unzipped.destroy(error))
  try {
    for await (const chunk of unzipped) {
      context.throwIfCancelled()
      bytes += chunk.length
      if (bytes > MAX_UNZIPPED_BYTES) throw new Unreadable('The file is too large when it is unzipped')
    }
  } catch (error) {
    if (!(error as NodeJS.ErrnoException).code?.startsWith('Z_')) throw error
    throw new Unreadable('The file is gzip but broken: it cannot be unzipped')
  } finally {
    zipped.destroy()
  }
}

function assertText(head: Buffer) {
  const start = head
    .toString('latin1', 0, 1_000)
    .replace(/^\u00ef\u00bb\u00bf/, '')
    .trimStart()
  if (start === '') throw new Unreadable('The file is empty')
  if (/^(\u00ff\u00fe|\u00fe\u00ff)/.test(start)) throw new Unreadable('The file is UTF-16: save it as UTF-8')
  if (head.includes(0)) throw new Unreadable('The file is not a CSV: it holds binary data')
  if (/^<(!doctype|\?xml|html)/i.test(start)) throw new Unreadable('The file is not a CSV but HTML or XML')
  if (/^(\{\s*"|\[\s*[{["])/.test(start)) throw new Unreadable('The file is not a CSV but JSON')
}
