import { createReadStream } from 'node:fs'
import { open } from 'node:fs/promises'
import { createGunzip } from 'node:zlib'

const READ_BYTES = 256 * 1024
/** Twice what may be uploaded: a gzip file of some megabytes can hold a thousand times its size. */
const MAX_UNZIPPED_BYTES = 2 * 1024 ** 3

/** The file cannot be summarised, for a reason that its owner understands. */
export class Unreadable extends Error {
  override readonly name = 'Unreadable'
}

export interface Source {
  isGzip: boolean
  /**
   * The text, as bytes: each chunk only until the next one is asked for. @throws Unreadable for
   * gzip that is broken, or holds too much.
   */
  chunks: AsyncIterable<Buffer>
}

/**
 * Opens an upload, plain or gzip: whatever RFC 1952 allows, several members and padding included.
 *
 * @param onRead told how many more bytes of the file were read.
 */
export async function openSource(file: string, onRead: (bytes: number) => void): Promise<Source> {
  const isGzip = await beginsLikeGzip(file)
  return { isGzip, chunks: isGzip ? unzip(file, onRead) : read(file, onRead) }
}

async function beginsLikeGzip(file: string): Promise<boolean> {
  await using handle = await open(file)
  const { bytesRead, buffer } = await handle.read(Buffer.alloc(2), 0, 2, 0)
  return bytesRead === 2 && buffer.readUInt16BE() === 0x1f8b
}

async function* read(file: string, onRead: (bytes: number) => void): AsyncGenerator<Buffer> {
  await using handle = await open(file)
  const buffer = Buffer.allocUnsafe(READ_BYTES)
  for (;;) {
    const { bytesRead } = await handle.read(buffer, 0, READ_BYTES, null)
    if (bytesRead === 0) return
    onRead(bytesRead)
    yield buffer.subarray(0, bytesRead)
  }
}

async function* unzip(file: string, onRead: (bytes: number) => void): AsyncGenerator<Buffer> {
  const zipped = createReadStream(file, { highWaterMark: READ_BYTES })
  const unzipped = zipped.pipe(createGunzip({ chunkSize: READ_BYTES }))
  zipped.on('data', (chunk) => onRead(chunk.length)).on('error', (error) => unzipped.destroy(error))
  let bytes = 0
  try {
    for await (const chunk of unzipped) {
      bytes += chunk.length
      if (bytes > MAX_UNZIPPED_BYTES)
        throw new Unreadable(
          `The file is too large when it is unzipped: more than ${MAX_UNZIPPED_BYTES / 1024 ** 3} GiB`,
        )
      yield chunk
    }
  } catch (error) {
    if (!(error as NodeJS.ErrnoException).code?.startsWith('Z_')) throw error
    throw new Unreadable('The file is gzip but broken: it cannot be unzipped', { cause: error })
  } finally {
    zipped.destroy()
  }
}
