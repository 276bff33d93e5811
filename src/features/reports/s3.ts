import { createWriteStream } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { Semaphore } from '../../db/semaphore.ts'
import { AppError } from '../../errors.ts'
import { assertRoom, type Storage, storageFull, uploadGone } from './storage.ts'

/** Each upload keeps one in memory. S3 refuses less than 5 MiB, except as the last. */
const PART_BYTES = 8 * 1024 ** 2
const MAX_UPLOADS = 32
const MAX_WAIT_MS = 2_000
const SLICE_BYTES = 256 * 1024
const ATTEMPTS = 4
const ATTEMPT_MS = 20_000
const RETRY_MS = 100
const RETRY_SECONDS = 10
const BRIEF_MS = 5_000
/** Objects are dated by the start of their upload. */
const MAX_UPLOAD_MS = 86_400_000
/** Objects with other names belong to somebody else. */
const NAME = /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}(\?|$)/

interface S3Options {
  endpoint: string
  region: string
  bucket: string
  folder: string
  accessKeyId: string
  secretAccessKey: string
}

interface S3Request<Result> {
  body?: Uint8Array
  headers?: Record<string, string>
  signal?: AbortSignal | undefined
  /** The request is repeated if this fails. */
  read?(response: Response): Promise<Result>
}

/** Stores uploads in an S3-compatible store. */
export class S3Storage implements Storage {
  readonly #options: S3Options
  readonly #bucket: string
  readonly #cache = new Map<string, ArrayBuffer>()
  readonly #uploads = new Semaphore(MAX_UPLOADS, {
    maxWaiters: 10 * MAX_UPLOADS,
    maxWaitMs: MAX_WAIT_MS,
    refusal: 'Too many uploads arrive: try again shortly',
  })

  constructor(options: S3Options) {
    this.#options = options
    this.#bucket = `${options.endpoint.replace(/\/+$/, '')}/${options.bucket}`
  }

  /** @throws AppError `invalid` if the store refuses the settings; `unavailable`. */
  async check(): Promise<void> {
    const signal = AbortSignal.timeout(BRIEF_MS)
    await this.#list({ 'list-type': '2', 'max-keys': '1' }, signal).catch((error) => {
      const { cause } = error
      if (!(cause instanceof S3Error)) throw unavailable(error)
      if (cause.isTransient) throw error
      const problem = `REPORT_STORAGE: ${this.#bucket} cannot be listed: ${cause.message}`
      throw new AppError('invalid', `Bad configuration:\n  ${problem}`, { cause })
    })
  }

  /**
   * Stores all bytes or none and returns the size.
   *
   * @throws AppError `storage_full`, `unavailable`; `overloaded` if too many uploads arrive; what
   * `bytes` throws.
   */
  async save(key: string, bytes: AsyncIterable<Uint8Array>): Promise<number> {
    await this.#uploads.acquire()
    let incomplete: string | undefined
    const etags: string[] = []
    let size = 0
    try {
      for await (const { part, isLast } of toParts(bytes)) {
        size += part.byteLength
        if (isLast && etags.length === 0) await this.#send('PUT', key, { body: part })
        else {
          incomplete ??= await this.#begin(key)
          etags.push(await this.#sendPart(incomplete, etags.length + 1, part))
        }
      }
      if (incomplete) await this.#complete(incomplete, etags, { key, size })
      return size
    } catch (error) {
      const names = incomplete ? [incomplete, key] : [key]
      // The sweep removes what is left.
      await Promise.allSettled(names.map((name) => this.remove(name)))
      throw error
    } finally {
      this.#uploads.release()
    }
  }

  /**
   * Downloads into `folder`.
   *
   * @throws AppError `not_found`, `unavailable`; `storage_full` if the disk is.
   */
  async locate(key: string, folder: string, signal: AbortSignal): Promise<string> {
    const size = await this.#readSize(key, signal).catch((error) => {
      throw isMissing(error) ? uploadGone(error) : error
    })
    await assertRoom(folder, size)
    const file = join(folder, 'upload')
    await writeFile(file, '')
    for (let start = 0; start < size; start += PART_BYTES) {
      const bytes = Math.min(PART_BYTES, size - start)
      await this.#send('GET', key, {
        headers: { range: `bytes=${start}-${start + bytes - 1}` },
        signal,
        async read({ body }) {
          const target = createWriteStream(file, { flags: 'r+', start })
          if (body) await pipeline(body, target)
          if (target.bytesWritten === bytes) return
          throw new S3Error(`S3 sent ${target.bytesWritten} of ${bytes} bytes`, {
            isTransient: true,
          })
        },
      })
    }
    return file
  }

  async remove(name: string, signal = AbortSignal.timeout(BRIEF_MS)): Promise<void> {
    await this.#send('DELETE', name, { signal }).catch((error) => {
      if (!isMissing(error)) throw error
    })
  }

  async listUntouched(ms: number, signal: AbortSignal): Promise<string[]> {
    const folder = `${this.#options.folder}/`
    const isOld = (date: string) => Date.parse(date) < Date.now() - ms - MAX_UPLOAD_MS
    const names: string[] = []
    const uploads = await this.#list({ uploads: '' }, signal)
    for (const upload of readAll(uploads, 'Upload'))
      if (isOld(read(upload, 'Initiated')))
        names.push(toIncomplete(read(upload, 'Key'), read(upload, 'UploadId')))
    for (let after: string | undefined = folder; after !== undefined; ) {
      const page = await this.#list({ 'list-type': '2', 'start-after': after }, signal)
      const objects = readAll(page, 'Contents')
      for (const object of objects)
        if (isOld(read(object, 'LastModified'))) names.push(read(object, 'Key'))
      const isLast = read(page, 'IsTruncated') !== 'true'
      after = isLast ? undefined : read(objects.at(-1) ?? '', 'Key') || undefined
    }
    return names.map((name) => name.slice(folder.length)).filter((name) => NAME.test(name))
  }

  async #begin(key: string): Promise<string> {
    return toIncomplete(key, read(await this.#send('POST', `${key}?uploads=`), 'UploadId'))
  }

  #sendPart(incomplete: string, number: number, part: Uint8Array): Promise<string> {
    return this.#send('PUT', `${incomplete}&partNumber=${number}`, {
      body: part,
      read: async ({ headers }) => headers.get('etag') ?? '',
    })
  }

  async #complete(
    incomplete: string,
    etags: readonly string[],
    { key, size }: { key: string; size: number },
  ): Promise<void> {
    const parts = etags.map(
      (etag, index) => `<Part><PartNumber>${index + 1}</PartNumber><ETag>${etag}</ETag></Part>`,
    )
    await this.#send('POST', incomplete, {
      body: Buffer.from(`<CompleteMultipartUpload>${parts.join('')}</CompleteMultipartUpload>`),
      async read(response) {
        const text = await response.text()
        // S3 may fail after 200.
        if (text.includes('<Error>'))
          throw new S3Error(`S3 answered POST with 200 ${read(text, 'Code')}`, {
            isTransient: true,
          })
      },
    }).catch(async (error) => {
      // The reply may be lost.
      if ((await this.#readSize(key).catch(() => undefined)) !== size) throw error
    })
  }

  #readSize(key: string, signal?: AbortSignal): Promise<number> {
    const read = async ({ headers }: Response) => Number(headers.get('content-length'))
    return this.#send('HEAD', key, { signal, read })
  }

  #list(query: Record<string, string>, signal?: AbortSignal): Promise<string> {
    const parameters = new URLSearchParams({ ...query, prefix: `${this.#options.folder}/` })
    return this.#request('GET', `${this.#bucket}?${parameters}`, { signal })
  }

  #send<Result = string>(method: string, name: string, request?: S3Request<Result>) {
    return this.#request(method, `${this.#bucket}/${this.#options.folder}/${name}`, request)
  }

  /** @throws AppError `unavailable`, `storage_full`; the signal's reason; what `read` throws. */
  async #request<Result = string>(
    method: string,
    url: string,
    request: S3Request<Result> = {},
  ): Promise<Result> {
    const { signal } = request
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#attempt(method, url, request)
      } catch (thrown) {
        const error = toS3Error(method, thrown)
        if (!error.isTransient || attempt === ATTEMPTS) throw toAppError(error)
      }
      const waited = sleep(Math.random() * RETRY_MS * 3 ** attempt, undefined, { signal })
      await waited.catch(() => signal?.throwIfAborted())
    }
  }

  async #attempt<Result>(method: string, url: string, request: S3Request<Result>): Promise<Result> {
    const { body, headers, signal, read = (response) => response.text() as Result } = request
    const { AwsV4Signer } = await import('aws4fetch')
    const options = { ...this.#options, service: 's3', cache: this.#cache, method, url }
    const signed = await new AwsV4Signer(options).sign()
    const limit = AbortSignal.timeout(ATTEMPT_MS)
    const response = await fetch(signed.url, {
      method,
      // Not signed: proxies may change them.
      headers: {
        ...Object.fromEntries(signed.headers),
        'accept-encoding': 'identity',
        ...(body && { 'content-length': String(body.byteLength) }),
        ...headers,
      },
      redirect: 'manual',
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
      ...(body && toBody(body)),
    })
    if (response.ok) return read(response)
    throw toRefusal(method, response.status, await response.text())
  }
}

interface Part {
  part: Uint8Array
  isLast: boolean
}

/** All in the same memory. */
async function* toParts(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<Part> {
  const memory = new Uint8Array(PART_BYTES)
  let used = 0
  for await (const chunk of bytes)
    for (let taken = 0; taken < chunk.byteLength; ) {
      if (used === PART_BYTES) {
        yield { part: memory, isLast: false }
        used = 0
      }
      const taking = chunk.subarray(taken, taken + PART_BYTES - used)
      memory.set(taking, used)
      used += taking.byteLength
      taken += taking.byteLength
    }
  yield { part: memory.subarray(0, used), isLast: true }
}

/** In slices, because `fetch` would copy the whole. */
function toBody(bytes: Uint8Array) {
  function* slice() {
    for (let start = 0; start < bytes.byteLength; start += SLICE_BYTES)
      yield bytes.subarray(start, start + SLICE_BYTES)
  }
  return { body: ReadableStream.from(slice()), duplex: 'half' as const }
}

const toIncomplete = (key: string, uploadId: string) =>
  `${key}?uploadId=${encodeURIComponent(uploadId)}`

const readAll = (xml: string, name: string): string[] =>
  [...xml.matchAll(new RegExp(`<${name}>(.*?)</${name}>`, 'gs'))].map(([, content = '']) => content)

const read = (xml: string, name: string): string => readAll(xml, name)[0] ?? ''

interface S3ErrorOptions extends ErrorOptions {
  status?: number
  code?: string
  isTransient: boolean
}

class S3Error extends Error {
  override readonly name = 'S3Error'
  readonly status: number | undefined
  readonly code: string
  readonly isTransient: boolean

  constructor(message: string, { status, code = '', isTransient, cause }: S3ErrorOptions) {
    super(message, { cause })
    this.status = status
    this.code = code
    this.isTransient = isTransient
  }
}

function toRefusal(method: string, status: number, xml: string): S3Error {
  const [code, message] = [read(xml, 'Code'), read(xml, 'Message')]
  return new S3Error(`${method} got ${status} ${code} ${message}`.trim(), {
    status,
    code,
    isTransient: (status >= 500 && status !== 507) || status === 429 || code === 'RequestTimeout',
  })
}

/** @throws `thrown` unless the store or the network is its reason. */
function toS3Error(method: string, thrown: unknown): S3Error {
  if (thrown instanceof S3Error) return thrown
  const isTimeout = thrown instanceof DOMException && thrown.name === 'TimeoutError'
  const isNetwork = thrown instanceof TypeError && thrown.cause !== undefined
  if (!isTimeout && !isNetwork) throw thrown
  const reason = isNetwork ? String(thrown.cause) : `nothing within ${ATTEMPT_MS} ms`
  return new S3Error(`${method} got no answer: ${reason}`, { cause: thrown, isTransient: true })
}

const toAppError = (error: S3Error) =>
  error.status === 507 || /StorageFull|QuotaExceeded/.test(error.code)
    ? storageFull(error)
    : unavailable(error)

const unavailable = (cause: unknown) =>
  new AppError('unavailable', 'The storage of uploads is not available: try later', {
    cause,
    retryAfter: RETRY_SECONDS,
  })

const isMissing = (error: AppError) => error.cause instanceof S3Error && error.cause.status === 404
