import { isUtf8 } from 'node:buffer'
import { open } from 'node:fs/promises'
import { pipeline } from 'node:stream'
import { createGunzip } from 'node:zlib'

export const MAX_COLUMNS = 200
/** A longer row usually has an unclosed quote. */
const MAX_ROW_BYTES = 1_000_000
const MAX_UNZIPPED_BYTES = 2 * 1024 ** 3
const READ_BYTES = 256 * 1024
const QUOTED_BYTES = 2_000
const START_BYTES = 1_000
const SAMPLE_ROWS = 1_000
const DELIMITERS = [',', ';', '\t', '|']
export const DELIMITER = /^([\t !#$%&'()*+,./:;<=>?@[\\\]^_`{|}~-]|tab)$/

/** The file's owner gets the message. */
export class InvalidCsvError extends Error {
  override readonly name = 'InvalidCsvError'
}

type OnRecord = (record: RecordReader) => void

/**
 * Reads a CSV file, plain or gzip, and returns its delimiter.
 *
 * @param requested null to detect the delimiter.
 * @throws InvalidCsvError if the gzip is broken or too large, or the start is not UTF-8 CSV.
 */
export async function readCsv(
  file: string,
  requested: string | null,
  onRecord: OnRecord,
  onProgress: (fraction: number) => void,
): Promise<string> {
  let head = Buffer.alloc(0)
  let reader: RecordReader | undefined
  for await (const chunk of readUpload(file, onProgress)) {
    if (reader) reader.push(chunk)
    else head = Buffer.concat([head, chunk])
    if (!reader && head.length >= READ_BYTES) reader = begin(head, requested, onRecord, false)
  }
  reader ??= begin(head, requested, onRecord, true)
  reader.end()
  return reader.delimiter
}

async function* readUpload(
  file: string,
  onProgress: (fraction: number) => void,
): AsyncGenerator<Buffer> {
  await using handle = await open(file)
  const { size } = await handle.stat()
  const { buffer } = await handle.read(Buffer.alloc(2), 0, 2, 0)
  const raw = handle.createReadStream({ start: 0, highWaterMark: READ_BYTES })
  const isGzip = buffer.readUInt16BE() === 0x1f8b
  const unzip = () => pipeline(raw, createGunzip({ chunkSize: READ_BYTES }), () => {})
  let bytes = 0
  try {
    for await (const chunk of isGzip ? unzip() : raw) {
      bytes += chunk.length
      if (bytes > MAX_UNZIPPED_BYTES)
        throw new InvalidCsvError('The file is too large when it is unzipped: more than 2 GiB')
      onProgress(raw.bytesRead / size)
      yield chunk
    }
  } catch (cause) {
    if (!(cause as NodeJS.ErrnoException).code?.startsWith('Z_')) throw cause
    throw new InvalidCsvError('The file is gzip but broken: it cannot be unzipped', { cause })
  }
}

export const FLAWS = {
  long: 'It is too long',
  encoding: 'It is not valid UTF-8',
  binary: 'It holds binary data',
  quote: 'A quote is not closed, or something follows it',
} as const

const LF = 10
const CR = 13
const QUOTE = 34
const IS_QUOTE = 1
const IS_DELIMITER = 2
const IS_LINE_END = 3

const [FIELD_START, PLAIN, QUOTED, CLOSED] = [0, 1, 2, 3] as const

/**
 * Splits bytes by RFC 4180. Records end in `\n`, `\r\n`, `\r` or `\r\r\n`; a quote within an
 * unquoted field is text.
 *
 * During `onRecord` the properties describe the record: an object for each would be slow.
 */
export class RecordReader {
  readonly delimiter: string
  readonly bytes = Buffer.allocUnsafe(MAX_ROW_BYTES + 2 * READ_BYTES)
  /** The record is `bytes` from `start` to `stop`. */
  start = 0
  stop = 0
  fields = 0
  /** Offsets of the fields from `start`, without their quotes. */
  readonly starts = new Int32Array(MAX_COLUMNS)
  readonly stops = new Int32Array(MAX_COLUMNS)
  line: number
  flaw: keyof typeof FLAWS | null = null
  /** Whether an unquoted field holds a quote. */
  hasStrayQuote = false
  /** Line ends within quotes. */
  innerLines = 0
  readonly #onRecord: OnRecord
  readonly #meanings = new Uint8Array(256)
  #length = 0
  /** How far `bytes` is parsed. */
  #at = 0
  #state: number = FIELD_START
  /** Up to here `bytes` is valid UTF-8 without zeros. */
  #validUntil = 0
  /** The beginning of a record that is too long to keep. */
  #longText: string | undefined

  constructor(delimiter: string, onRecord: OnRecord, line = 1) {
    this.delimiter = delimiter
    this.#onRecord = onRecord
    this.line = line
    this.#meanings[QUOTE] = IS_QUOTE
    this.#meanings[delimiter.charCodeAt(0)] = IS_DELIMITER
    this.#meanings[LF] = IS_LINE_END
    this.#meanings[CR] = IS_LINE_END
  }

  get text(): string {
    return this.#longText ?? this.#toText(this.start, this.stop)
  }

  get isBlank(): boolean {
    return this.start === this.stop && this.flaw === null
  }

  field(index: number): string {
    const [from, to] = [this.starts[index] as number, this.stops[index] as number]
    const text = this.bytes.toString('utf8', this.start + from, this.start + to)
    return this.isQuoted(index) ? text.replaceAll('""', '"') : text
  }

  isQuoted(index: number): boolean {
    const at = this.starts[index] as number
    return at > 0 && this.bytes[this.start + at - 1] === QUOTE
  }

  push(bytes: Uint8Array): void {
    for (let from = 0; from < bytes.length; from += READ_BYTES) {
      const chunk = bytes.subarray(from, from + READ_BYTES)
      this.bytes.set(chunk, this.#length)
      this.#length += chunk.length
      // Parsing stays two bytes behind to tell `"` from `""`, and `\r` from `\r\r\n`.
      this.#parse(this.#length - 2)
      this.#shift()
    }
  }

  end(): void {
    const size = this.#length
    if (size === 0) return
    const isEnded = this.#meanings[this.bytes[size - 1] as number] === IS_LINE_END
    this.bytes.set([isEnded ? 0 : LF, 0, 0], size)
    this.#parse(isEnded ? size : size + 1)
    if (this.#state === QUOTED) this.#finish(size, size, true)
  }

  #shift() {
    const { bytes } = this
    if (this.#at - this.start > MAX_ROW_BYTES) {
      this.#longText ??= this.#toText(this.start, this.#at)
      this.start = this.#at
    }
    bytes.copyWithin(0, this.start, this.#length)
    this.#length -= this.start
    this.#at -= this.start
    this.start = 0
  }

  #parse(limit: number) {
    const { bytes, starts, stops } = this
    const meanings = this.#meanings
    this.#validate()
    let { start, fields } = this
    let at = this.#at
    let state = this.#state
    let isBroken = this.flaw !== null
    while (at < limit) {
      if (state === FIELD_START) {
        state = bytes[at] === QUOTE ? QUOTED : PLAIN
        if (state === QUOTED) at++
        starts[fields] = at - start
      }
      if (state === QUOTED) {
        for (; at < limit; at++) {
          const byte = bytes[at]
          if (byte === QUOTE) {
            if (bytes[at + 1] !== QUOTE) break
            at++
          } else if (byte === LF || (byte === CR && bytes[at + 1] !== LF)) this.innerLines++
        }
        if (at >= limit) break
        stops[fields] = at++ - start
        state = CLOSED
      }
      const rest = at
      let meaning = 0
      for (; at < limit; at++) {
        meaning = meanings[bytes[at] as number] as number
        if (meaning === 0) continue
        if (meaning !== IS_QUOTE) break
        this.hasStrayQuote = true
      }
      if (state === PLAIN) stops[fields] = at - start
      else if (at > rest) isBroken = true
      if (at >= limit) break
      fields++
      state = FIELD_START
      if (meaning === IS_DELIMITER) at++
      else {
        this.fields = fields
        at = this.#finish(at, at + this.#countLineEnd(at), isBroken)
        start = at
        fields = 0
        isBroken = false
      }
    }
    this.#at = at
    this.#state = state
    this.fields = fields
    this.flaw = isBroken ? 'quote' : null
  }

  /** Checks all bytes at once; only if that fails, each record. */
  #validate() {
    const lines = this.bytes.subarray(0, this.bytes.subarray(0, this.#length).lastIndexOf(LF) + 1)
    this.#validUntil = isUtf8(lines) && !lines.includes(0) ? lines.length : 0
  }

  #countLineEnd(at: number): number {
    if (this.bytes[at] === LF) return 1
    if (this.bytes[at + 1] === LF) return 2
    return this.bytes[at + 1] === CR && this.bytes[at + 2] === LF ? 3 : 1
  }

  #finish(stop: number, next: number, isBroken: boolean): number {
    this.stop = stop
    this.flaw = this.#findFlaw() ?? (isBroken ? 'quote' : null)
    this.#onRecord(this)
    this.line += this.innerLines + 1
    this.start = next
    this.innerLines = 0
    this.hasStrayQuote = false
    this.#longText = undefined
    return next
  }

  #findFlaw() {
    const { start, stop } = this
    if (this.#longText !== undefined || stop - start > MAX_ROW_BYTES) return 'long'
    if (stop <= this.#validUntil) return null
    const record = this.bytes.subarray(start, stop)
    if (!isUtf8(record)) return 'encoding'
    return record.includes(0) ? 'binary' : null
  }

  #toText(start: number, stop: number): string {
    return this.bytes.toString('utf8', start, Math.min(stop, start + QUOTED_BYTES))
  }
}

/** The delimiter is the requested one, that of a first line `sep=;` as in Excel, or a guess. */
function begin(
  head: Buffer,
  requested: string | null,
  onRecord: OnRecord,
  isWhole: boolean,
): RecordReader {
  const text = head.subarray(head.subarray(0, 3).toString() === '\ufeff' ? 3 : 0)
  assertText(text.subarray(0, START_BYTES))
  const [line = '', named = ''] =
    /^"?sep=(.)"?(?:\r*\n|\r|$)/i.exec(text.toString('latin1', 0, 20)) ?? []
  const isNamed = DELIMITER.test(named)
  const delimiter = requested ?? (isNamed ? named : guessDelimiter(text, isWhole))
  const reader = new RecordReader(delimiter, onRecord, isNamed ? 2 : 1)
  reader.push(isNamed ? text.subarray(line.length) : text)
  return reader
}

function assertText(bytes: Buffer) {
  const start = bytes.toString('latin1').trimStart()
  if (start === '') throw new InvalidCsvError('The file is empty')
  const encoding = findWideEncoding(bytes)
  if (encoding) throw new InvalidCsvError(`The file is ${encoding}: save it as UTF-8`)
  if (bytes.includes(0)) throw new InvalidCsvError('The file is not a CSV: it holds binary data')
  if (/^<(!doctype|\?xml|html)/i.test(start))
    throw new InvalidCsvError('The file is not a CSV but HTML or XML')
  if (/^(\{\s*"|\[\s*[{["])/.test(start))
    throw new InvalidCsvError('The file is not a CSV but JSON')
}

/** Detects UTF-32 by its code points, UTF-16 by a byte order mark or by zeros in text. */
function findWideEncoding(bytes: Buffer): 'UTF-32' | 'UTF-16' | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const offsets = Array.from({ length: bytes.length >> 2 }, (_, index) => 4 * index)
  const isUtf32 = [true, false].some((isLittleEndian) =>
    isText(() => String.fromCodePoint(...offsets.map((at) => view.getUint32(at, isLittleEndian)))),
  )
  if (isUtf32) return 'UTF-32'
  if (/^(\xff\xfe|\xfe\xff)/.test(bytes.toString('latin1', 0, 2))) return 'UTF-16'
  // The sample may end within a character.
  const whole = bytes.subarray(0, bytes.length & ~1)
  const isUtf16 = ['utf-16le', 'utf-16be'].some((encoding) =>
    isText(() => new TextDecoder(encoding, { fatal: true }).decode(whole, { stream: true })),
  )
  return bytes.includes(0) && isUtf16 ? 'UTF-16' : undefined
}

/** Whether all characters are assigned, and none is a control character but white space. */
function isText(decode: () => string): boolean {
  try {
    return /^[\P{C}\p{Cf}\t\n\r]+$/u.test(decode())
  } catch {
    return false
  }
}

function guessDelimiter(head: Buffer, isWhole: boolean): string {
  const matches = DELIMITERS.map((delimiter) => countMatchingRows(head, delimiter, isWhole))
  const best = matches.indexOf(Math.max(...matches))
  return DELIMITERS[best] as string
}

/** Rows with as many fields as the header; 0 if that has one. */
function countMatchingRows(head: Buffer, delimiter: string, isWhole: boolean): number {
  let header = 0
  let [rows, matching] = [0, 0]
  const reader = new RecordReader(delimiter, ({ fields, isBlank }) => {
    if (isBlank || rows === SAMPLE_ROWS) return
    header ||= fields
    rows++
    if (fields === header) matching++
  })
  reader.push(head)
  if (isWhole || rows === 0) reader.end()
  return header > 1 ? matching : 0
}
