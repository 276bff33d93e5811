import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { AppError } from '../../errors.ts'

const WRITE_BYTES = 1024 * 1024
/** Of an upload that has not arrived in full. */
const PART = '.part'

/** Where uploads are kept. Another one, on machines that share no disk, would fetch them in `locate`. */
export interface Storage {
  /** Keeps what arrives, all of it or nothing. @throws AppError `storage_full`; what `bytes` throws. */
  save(key: string, bytes: AsyncIterable<Uint8Array>): Promise<void>
  /** A file with the upload. @throws AppError `not_found`. */
  locate(key: string): Promise<string>
  /** Removes it if it is there. */
  remove(key: string): Promise<void>
  /** Those that nobody has written to for so long, unfinished ones too. */
  untouched(forMs: number): Promise<string[]>
}

/** A local directory, which all processes on the machine may share. */
export class DirectoryStorage implements Storage {
  readonly #directory: string

  constructor(directory: string) {
    this.#directory = directory
  }

  async save(key: string, bytes: AsyncIterable<Uint8Array>): Promise<void> {
    const file = this.#fileOf(key)
    const part = file + PART
    try {
      await mkdir(this.#directory, { recursive: true })
      // Before anything arrives: a file that is still being opened while it is removed would stay.
      const handle = await open(part, 'w')
      // Flushed, and then named: a power cut leaves all of it, or something that `untouched` finds.
      await pipeline(bytes, handle.createWriteStream({ flush: true, highWaterMark: WRITE_BYTES }))
      await rename(part, file)
      await flushDirectory(this.#directory)
    } catch (error) {
      await Promise.all([rm(part, { force: true }), rm(file, { force: true })])
      throw isFull(error) ? new AppError('storage_full', 'There is no room for the upload: try later', { cause: error }) : error
    }
  }

  async locate(key: string): Promise<string> {
    const file = this.#fileOf(key)
    await stat(file).catch((cause) => {
      throw new AppError('not_found', 'The upload is gone', { cause, retryable: false })
    })
    return file
  }

  async remove(key: string): Promise<void> {
    await rm(this.#fileOf(key), { force: true })
  }

  async untouched(forMs: number): Promise<string[]> {
    return namesOlderThan(this.#directory, forMs)
  }

  #fileOf(key: string): string {
    return join(this.#directory, key)
  }
}

/** The names in a directory, which need not exist, that were not written to for so long. */
export async function namesOlderThan(directory: string, ms: number): Promise<string[]> {
  const names = await readdir(directory).catch(() => [])
  const isOld = await Promise.all(
    names.map(async (name) => {
      const found = await stat(join(directory, name)).catch(() => undefined)
      return found !== undefined && Date.now() - found.mtimeMs > ms
    }),
  )
  return names.filter((_, index) => isOld[index])
}

/** The name of a new file is on the disk when its directory is. */
async function flushDirectory(directory: string): Promise<void> {
  await using handle = await open(directory)
  await handle.sync()
}

const isFull = (error: unknown) => ['ENOSPC', 'EDQUOT'].includes((error as NodeJS.ErrnoException).code ?? '')
