import { type FileHandle, mkdir, open, opendir, rename, rm, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { AppError, overloaded } from '../../errors.ts'

const WRITE_BYTES = 1024 * 1024
/** Of an upload that has not arrived in full. */
const PART = '.part'
/** How many names `namesOlderThan` gives at once. */
const BATCH = 500

/**
 * Where uploads are kept. Another one, on machines that share no disk, would fetch them in
 * `locate`.
 */
export interface Storage {
  /**
   * Keeps what arrives, all of it or nothing.
   *
   * @param expectedBytes how many bytes there will be, where that is known: what cannot fit is
   * refused before it arrives.
   * @throws AppError `storage_full`; `overloaded` when the process has too many files open; what
   * `bytes` throws.
   */
  save(key: string, bytes: AsyncIterable<Uint8Array>, expectedBytes?: number): Promise<void>
  /** A file with the upload. @throws AppError `not_found`. */
  locate(key: string): Promise<string>
  /** Removes it if it is there. */
  remove(key: string): Promise<void>
  /** Those that have not been written to for `forMs`, unfinished ones too, in batches. */
  untouched(forMs: number): AsyncIterable<string[]>
}

/** An upload that arrives. */
interface Arrival {
  /** Aborted when the upload must give way to an older one. */
  giveWay: AbortController
  /** Resolves when its file is complete or removed. */
  ended: Promise<void>
}

/** A local directory, which all processes on the machine may share. */
export class DirectoryStorage implements Storage {
  readonly #directory: string
  /** Oldest first. */
  readonly #arriving = new Set<Arrival>()
  /** How many uploads have failed and made room so far. */
  #removed = 0

  constructor(directory: string) {
    this.#directory = directory
  }

  async save(key: string, bytes: AsyncIterable<Uint8Array>, expectedBytes = 0): Promise<void> {
    const { promise: ended, resolve: end } = Promise.withResolvers<void>()
    const arrival = { giveWay: new AbortController(), ended }
    this.#arriving.add(arrival)
    const file = this.#fileOf(key)
    const part = file + PART
    try {
      await mkdir(this.#directory, { recursive: true })
      await this.#assertRoom(expectedBytes)
      await this.#receive(part, bytes, arrival)
      await rename(part, file)
      await flushDirectory(this.#directory)
    } catch (error) {
      await Promise.all([rm(part, { force: true }), rm(file, { force: true })])
      this.#removed++
      throw toAppError(error)
    } finally {
      this.#arriving.delete(arrival)
      end()
    }
  }

  async locate(key: string): Promise<string> {
    const file = this.#fileOf(key)
    await stat(file).catch((cause) => {
      if (isMissing(cause))
        throw new AppError('not_found', 'The upload is gone', { cause, retryable: false })
      throw cause
    })
    return file
  }

  async remove(key: string): Promise<void> {
    await rm(this.#fileOf(key), { force: true })
  }

  untouched(forMs: number): AsyncIterable<string[]> {
    return namesOlderThan(this.#directory, forMs)
  }

  async #assertRoom(bytes: number): Promise<void> {
    const { blocks, bavail, bsize } = await statfs(this.#directory)
    // Some network file systems do not know.
    if (blocks > 0 && bytes > bavail * bsize) throw storageFull()
  }

  /**
   * Flushed before it gets its name: a power cut leaves all of it, or a part that `untouched`
   * finds.
   */
  async #receive(part: string, bytes: AsyncIterable<Uint8Array>, arrival: Arrival): Promise<void> {
    // The file is open before anything arrives: a file that is still being opened while it is
    // removed would stay.
    await using handle = await open(part, 'w')
    const write = (buffers: Uint8Array[], done: (error?: Error | null) => void) => {
      const fail = (error: Error) => {
        // A client that sends nothing at the moment would not notice otherwise.
        arrival.giveWay.abort(error)
        done(error)
      }
      this.#write(handle, buffers, arrival).then(() => done(), fail)
    }
    const file = new Writable({
      highWaterMark: WRITE_BYTES,
      write: (chunk: Uint8Array, _, done) => write([chunk], done),
      writev: (chunks, done) =>
        write(
          chunks.map(({ chunk }) => chunk),
          done,
        ),
    })
    await pipeline(abortable(bytes, arrival.giveWay.signal), file)
    // All of it is on the disk: nobody would gain by its giving way.
    this.#arriving.delete(arrival)
    await handle.sync()
  }

  async #write(handle: FileHandle, buffers: Uint8Array[], arrival: Arrival): Promise<void> {
    for (let rest = buffers; rest.length > 0; ) {
      const removedBefore = this.#removed
      try {
        const { bytesWritten } = await handle.writev(rest)
        rest = dropBytes(rest, bytesWritten)
      } catch (error) {
        if (!isFull(error)) throw error
        // Room that was made while it was being written counts: another attempt uses it.
        if (this.#removed === removedBefore) await this.#makeRoom(arrival, error)
      }
    }
  }

  /**
   * On a full disk the youngest upload gives way to the older ones: if all of them failed, those
   * that fit would, too.
   *
   * @throws AppError `storage_full` where this one is the youngest.
   */
  async #makeRoom(arrival: Arrival, cause: unknown): Promise<void> {
    const youngest = [...this.#arriving].at(-1)
    if (youngest === undefined || youngest === arrival) throw storageFull(cause)
    youngest.giveWay.abort(storageFull(cause))
    await youngest.ended
  }

  #fileOf(key: string): string {
    return join(this.#directory, key)
  }
}

/**
 * The names in a directory, which need not exist, that have not been written to for `ms`, in
 * batches.
 */
export async function* namesOlderThan(directory: string, ms: number): AsyncGenerator<string[]> {
  for await (const names of batchesOf(directory)) {
    const areOld = await Promise.all(names.map((name) => isOlderThan(join(directory, name), ms)))
    yield names.filter((_, index) => areOld[index])
  }
}

async function* batchesOf(directory: string): AsyncGenerator<string[]> {
  const entries = await opendir(directory).catch((error) => {
    if (isMissing(error)) return []
    throw error
  })
  let batch: string[] = []
  for await (const { name } of entries) {
    batch.push(name)
    if (batch.length < BATCH) continue
    yield batch
    batch = []
  }
  yield batch
}

async function isOlderThan(file: string, ms: number): Promise<boolean> {
  const found = await stat(file).catch(() => undefined)
  return found !== undefined && Date.now() - found.mtimeMs > ms
}

/** Passes on what `source` gives, until `signal` aborts, also while nothing comes. */
async function* abortable<T>(source: AsyncIterable<T>, signal: AbortSignal): AsyncGenerator<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>()
  const onAbort = () => reject(signal.reason)
  signal.addEventListener('abort', onAbort)
  aborted.catch(() => {})
  const items = source[Symbol.asyncIterator]()
  for (;;) {
    const { done, value } = await Promise.race([items.next(), aborted])
    if (done) return
    yield value
  }
}

function dropBytes(buffers: Uint8Array[], bytes: number): Uint8Array[] {
  let left = bytes
  return buffers.flatMap((buffer) => {
    const dropped = Math.min(left, buffer.byteLength)
    left -= dropped
    return dropped === buffer.byteLength ? [] : [buffer.subarray(dropped)]
  })
}

/** The name of a new file is on the disk when its directory is. */
async function flushDirectory(directory: string): Promise<void> {
  await using handle = await open(directory)
  await handle.sync()
}

const storageFull = (cause?: unknown) =>
  new AppError('storage_full', 'There is no room for the upload: try later', { cause })

function toAppError(error: unknown): unknown {
  if (isFull(error)) return storageFull(error)
  if (codeOf(error) === 'EMFILE' || codeOf(error) === 'ENFILE')
    return overloaded('Too many files are open: try again shortly', undefined, error)
  return error
}

/**
 * Whether a message of Node or DuckDB says so; DuckDB leaves some of the disk to others, by
 * `max_temp_directory_size`.
 */
export const isDiskFull = (message: string) =>
  /ENOSPC|EDQUOT|No space left|Disk quota|max_temp_directory_size/.test(message)

const isFull = (error: unknown) => ['ENOSPC', 'EDQUOT'].includes(codeOf(error) ?? '')
const isMissing = (error: unknown) => codeOf(error) === 'ENOENT'
const codeOf = (error: unknown) => (error as NodeJS.ErrnoException | undefined)?.code
