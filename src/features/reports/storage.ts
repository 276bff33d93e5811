import { type FileHandle, mkdir, open, opendir, rename, rm, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, overloaded } from '../../errors.ts'

export interface Storage {
  /** Stores all bytes or none and returns the size. */
  save(key: string, bytes: AsyncIterable<Uint8Array>, expectedBytes?: number): Promise<number>
  /** The upload as a local file, if need be in `folder`. @throws AppError `not_found`. */
  locate(key: string, folder: string, signal: AbortSignal): Promise<string>
  remove(name: string, signal?: AbortSignal): Promise<void>
  /** Uploads, complete or not, that were not written to for `ms`, or longer. */
  listUntouched(ms: number, signal: AbortSignal): Promise<string[]>
}

/** Stores uploads in a directory, which processes may share. */
export class DirectoryStorage implements Storage {
  readonly #directory: string
  /** Oldest first: what aborts an upload, and what resolves when it has ended. */
  readonly #arriving = new Map<AbortController, Promise<void>>()
  /** Failed uploads. */
  #removed = 0

  constructor(directory: string) {
    this.#directory = directory
  }

  /**
   * On a full disk the youngest upload fails.
   *
   * @param expectedBytes if known, refused at once if they cannot fit.
   * @throws AppError `storage_full`; `overloaded` if too many files are open; what `bytes` throws.
   */
  async save(key: string, bytes: AsyncIterable<Uint8Array>, expectedBytes = 0): Promise<number> {
    const giveWay = new AbortController()
    const { promise: ended, resolve: end } = Promise.withResolvers<void>()
    this.#arriving.set(giveWay, ended)
    const file = join(this.#directory, key)
    const part = `${file}.part`
    try {
      await mkdir(this.#directory, { recursive: true })
      await assertRoom(this.#directory, expectedBytes)
      const size = await this.#receive(part, bytes, giveWay)
      await rename(part, file)
      // Only this makes the rename durable.
      await using directory = await open(this.#directory)
      await directory.sync()
      return size
    } catch (error) {
      await Promise.all([rm(part, { force: true }), rm(file, { force: true })])
      this.#removed++
      throw toAppError(error)
    } finally {
      this.#arriving.delete(giveWay)
      end()
    }
  }

  async locate(key: string): Promise<string> {
    const file = join(this.#directory, key)
    await stat(file).catch((cause) => {
      throw isCode(cause, 'ENOENT') ? uploadGone(cause) : cause
    })
    return file
  }

  async remove(key: string): Promise<void> {
    await rm(join(this.#directory, key), { force: true })
  }

  listUntouched(ms: number): Promise<string[]> {
    return listOldNames(this.#directory, ms)
  }

  async #receive(part: string, bytes: AsyncIterable<Uint8Array>, giveWay: AbortController) {
    await using handle = await open(part, 'w')
    let size = 0
    for await (const chunk of abortable(bytes, giveWay.signal)) {
      await this.#write(handle, chunk, giveWay)
      size += chunk.byteLength
    }
    // A complete upload is not removed to make room.
    this.#arriving.delete(giveWay)
    await handle.sync()
    return size
  }

  async #write(handle: FileHandle, chunk: Uint8Array, giveWay: AbortController): Promise<void> {
    for (let written = 0; written < chunk.byteLength; ) {
      const removedBefore = this.#removed
      try {
        written += (await handle.write(chunk, written)).bytesWritten
      } catch (error) {
        if (!isCode(error, 'ENOSPC', 'EDQUOT')) throw error
        // A failed upload may have freed space: retry.
        if (this.#removed === removedBefore) await this.#makeRoom(giveWay, error)
      }
    }
  }

  async #makeRoom(own: AbortController, cause: unknown): Promise<void> {
    const [youngest, ended] = [...this.#arriving].at(-1) ?? [own]
    if (youngest === own) throw storageFull(cause)
    youngest.abort(storageFull(cause))
    await ended
  }
}

/** @throws AppError `storage_full`. */
export async function assertRoom(directory: string, bytes: number): Promise<void> {
  const { blocks, bavail, bsize } = await statfs(directory)
  // Some network file systems report no blocks.
  if (blocks > 0 && bytes > bavail * bsize) throw storageFull()
}

export async function listOldNames(directory: string, ms: number): Promise<string[]> {
  const isOld = async (name: string) => {
    const found = await stat(join(directory, name)).catch(() => undefined)
    return found !== undefined && Date.now() - found.mtimeMs > ms
  }
  const entries = await opendir(directory).catch((error) => {
    if (isCode(error, 'ENOENT')) return []
    throw error
  })
  const old: string[] = []
  for await (const { name } of entries) if (await isOld(name)) old.push(name)
  return old
}

async function* abortable<T>(source: AsyncIterable<T>, signal: AbortSignal): AsyncGenerator<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>()
  aborted.catch(() => {})
  signal.addEventListener('abort', () => reject(signal.reason))
  const items = source[Symbol.asyncIterator]()
  for (;;) {
    const { done, value } = await Promise.race([items.next(), aborted])
    if (done) return
    yield value
  }
}

export const QUOTA = { unfinished: 100, bytes: 10 * 1024 ** 3 }
const RETRY_SECONDS = 10

/** Limits the reports and the bytes on disk of each owner. */
export class Quota {
  readonly #arriving = new Set<{ owner: string; bytes: number }>()

  /**
   * Reserves room for an upload of at most `bytes`, until it is disposed of.
   *
   * @throws AppError `rate_limited`.
   */
  reserve(owner: string, stored: { unfinished: number; bytes: number }, bytes: number): Disposable {
    const arriving = [...this.#arriving].filter((upload) => upload.owner === owner)
    if (stored.unfinished + arriving.length >= QUOTA.unfinished)
      throw exceeded(`${QUOTA.unfinished} unfinished reports: wait for them, or cancel some`)
    const total = arriving.reduce((sum, upload) => sum + upload.bytes, stored.bytes + bytes)
    if (total > QUOTA.bytes)
      throw exceeded(`${QUOTA.bytes / 1024 ** 3} GiB of uploads: delete reports you have read`)
    const upload = { owner, bytes }
    this.#arriving.add(upload)
    return { [Symbol.dispose]: () => void this.#arriving.delete(upload) }
  }
}

const exceeded = (what: string) =>
  new AppError('rate_limited', `You may have ${what}`, { retryAfter: RETRY_SECONDS })

export const uploadGone = (cause?: unknown) =>
  new AppError('not_found', 'The upload is gone', { cause, retryable: false })

export const storageFull = (cause?: unknown) =>
  new AppError('storage_full', 'There is no room for the upload: try later', { cause })

function toAppError(error: unknown): unknown {
  if (isCode(error, 'ENOSPC', 'EDQUOT')) return storageFull(error)
  if (isCode(error, 'EMFILE', 'ENFILE'))
    return overloaded('Too many files are open: try again shortly', undefined, error)
  return error
}

export const isDiskFull = (message: string) =>
  /ENOSPC|EDQUOT|No space left|Disk quota|max_temp_directory_size/.test(message)

const isCode = (error: unknown, ...codes: string[]) =>
  codes.includes((error as NodeJS.ErrnoException | undefined)?.code ?? '')
