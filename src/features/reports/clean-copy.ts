import { closeSync, openSync, readSync, writeSync } from 'node:fs'

const BUFFER_BYTES = 256 * 1024

/**
 * A file that is written piece by piece, in large blocks: the rows of an upload that can be read,
 * without the others.
 */
export class CleanCopy implements Disposable {
  readonly file: string
  readonly #descriptor: number
  readonly #buffer = Buffer.allocUnsafe(BUFFER_BYTES)
  #used = 0

  constructor(file: string) {
    this.file = file
    this.#descriptor = openSync(file, 'wx')
  }

  write(bytes: Uint8Array): void {
    if (bytes.length > BUFFER_BYTES - this.#used) this.flush()
    if (bytes.length > BUFFER_BYTES) this.#writeAll(bytes)
    else {
      this.#buffer.set(bytes, this.#used)
      this.#used += bytes.length
    }
  }

  /** Writes what another file holds from `start` to `end`. */
  writeFrom(file: string, start: number, end: number): void {
    const source = openSync(file, 'r')
    try {
      const block = Buffer.allocUnsafe(BUFFER_BYTES)
      for (let at = start; at < end; ) {
        const read = readSync(source, block, 0, Math.min(block.length, end - at), at)
        if (read === 0) throw new Error(`The file ended at byte ${at} while it was copied`)
        this.write(block.subarray(0, read))
        at += read
      }
    } finally {
      closeSync(source)
    }
  }

  flush(): void {
    this.#writeAll(this.#buffer.subarray(0, this.#used))
    this.#used = 0
  }

  [Symbol.dispose]() {
    closeSync(this.#descriptor)
  }

  #writeAll(bytes: Uint8Array) {
    for (let at = 0; at < bytes.length; ) at += writeSync(this.#descriptor, bytes, at)
  }
}
