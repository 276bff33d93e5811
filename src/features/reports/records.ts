import { isUtf8 } from 'node:buffer'

/** Longer rows are rejected: they are mistakes, a quote that is not closed for example. */
const MAX_ROW_BYTES = 1_000_000
export const MAX_COLUMNS = 200
const WORK_BYTES = 2 * 1024 * 1024
const PREFIX_BYTES = 2_000

const LF = 10
const CR = 13
const QUOTE = 34
/** What a byte means outside of quotes; 0 stands for all others. */
const IS_DELIMITER = 1
const IS_LINE_END = 2
const IS_QUOTE = 3

/** Why a record is none, apart from how many fields it has. */
export const FLAWS = {
  long: 'It is too long',
  encoding: 'It is not valid UTF-8',
  binary: 'It holds binary data',
  quote: 'A quote is not closed, or something follows it',
} as const

export type Flaw = keyof typeof FLAWS

/** How a record ends; `\r\r\n` comes from programs that translate `\n` twice. */
export type LineEnd = '' | '\n' | '\r\n' | '\r' | '\r\r\n'

interface Skipped {
  state: 'fieldStart' | 'plain' | 'quoted' | 'closed'
  offset: number
  prefix: string
}

/**
 * Splits bytes into records and fields by RFC 4180: one delimiter, `"` around fields that hold
 * delimiters, quotes or line ends, and `""` for a quote in them. Records end in any of `\n`,
 * `\r\n`, `\r` and `\r\r\n`. A quote within a field that does not begin with one is part of the
 * text.
 *
 * While `onRecord` is called, the reader's fields describe the record: there is one object for all
 * of them, because a file may hold a hundred million fields.
 */
export class RecordReader {
  /** Holds the record from `start` to `stop`; the next one begins at `next`. */
  readonly bytes: Buffer
  start = 0
  stop = 0
  next = 0
  /** How many fields it has, and where the first of them are, without their quotes. */
  fields = 0
  readonly starts = new Int32Array(MAX_COLUMNS)
  readonly stops = new Int32Array(MAX_COLUMNS)
  /** The line in which it begins, from 1 on. */
  line: number
  lineEnd: LineEnd = ''
  flaw: Flaw | null = null
  /** It has a quote within a field that does not begin with one. */
  hasStrayQuote = false
  /** It has a line end within quotes. */
  isMultiline = false
  readonly #onRecord: (record: RecordReader) => void
  readonly #delimiter: number
  readonly #meanings = new Uint8Array(256)
  #length = 0
  /** The position of `bytes` in all that was read. */
  #base: number
  /** Up to here `bytes` is known to be UTF-8 without binary data. */
  #checkedUntil = 0
  /** Set while a record that is too long is read. */
  #skipped: Skipped | undefined

  /**
   * @param origin the position and the line at which the first record begins.
   * @param size of all that is read, in bytes; Infinity if that is not known.
   */
  constructor(
    delimiter: string,
    onRecord: (record: RecordReader) => void,
    origin = { offset: 0, line: 1 },
    size = Number.POSITIVE_INFINITY,
  ) {
    // Two bytes more for what stands behind the last one.
    this.bytes = Buffer.allocUnsafe(Math.min(size, WORK_BYTES) + 2)
    this.#onRecord = onRecord
    this.#delimiter = delimiter.charCodeAt(0)
    this.#base = origin.offset
    this.line = origin.line
    this.#meanings[this.#delimiter] = IS_DELIMITER
    this.#meanings[LF] = IS_LINE_END
    this.#meanings[CR] = IS_LINE_END
    this.#meanings[QUOTE] = IS_QUOTE
  }

  /** The position of the record in all that was read. */
  get offset(): number {
    return this.#skipped?.offset ?? this.#base + this.start
  }

  /** The beginning of the record, for people. */
  get text(): string {
    return this.#skipped?.prefix ?? this.#prefixFrom(this.start, this.stop)
  }

  /** The text of a field. */
  field(index: number): string {
    const text = this.bytes.toString('utf8', this.starts[index], this.stops[index])
    return this.isQuoted(index) ? text.replaceAll('""', '"') : text
  }

  isQuoted(index: number): boolean {
    const start = this.starts[index] as number
    return start > this.start && this.bytes[start - 1] === QUOTE
  }

  /**
   * Takes the next bytes, and calls `onRecord` for each record that is complete.
   *
   * @param beforeShift called before records that were passed on leave `bytes`.
   */
  push(chunk: Uint8Array, beforeShift?: () => void): void {
    for (let from = 0; from < chunk.length; ) {
      const part = chunk.subarray(from, from + this.bytes.length - 2 - this.#length)
      this.bytes.set(part, this.#length)
      this.#length += part.length
      from += part.length
      this.#advance(false, beforeShift)
    }
  }

  /** There are no more bytes: what is left is a record. */
  end(beforeShift?: () => void): void {
    this.#advance(true, beforeShift)
  }

  #advance(isLast: boolean, beforeShift: (() => void) | undefined) {
    const { bytes } = this
    // A line end after the last byte ends every loop over a field without a check of the length.
    bytes[this.#length] = LF
    bytes[this.#length + 1] = 0
    this.#check()
    let at = 0
    for (;;) {
      if (this.#skipped) at = this.#skip(at, isLast)
      if (this.#skipped) break
      at = this.#scan(at, isLast)
      if (this.#length - at <= MAX_ROW_BYTES) break
      this.#skipped = {
        state: 'fieldStart',
        offset: this.#base + at,
        prefix: this.#prefixFrom(at, this.#length),
      }
    }
    beforeShift?.()
    bytes.copyWithin(0, at, this.#length)
    this.#length -= at
    this.#base += at
  }

  /** Most bytes are checked at once; where that fails, each record is. */
  #check() {
    const last = this.bytes.subarray(0, this.#length).lastIndexOf(LF)
    const lines = this.bytes.subarray(0, last + 1)
    this.#checkedUntil = isUtf8(lines) && !lines.includes(0) ? lines.length : 0
  }

  /** Passes on all records that are complete, and gives where the first one begins that is not. */
  #scan(from: number, isLast: boolean): number {
    const { bytes, starts, stops } = this
    const meanings = this.#meanings
    const delimiter = this.#delimiter
    const length = this.#length
    let start = from
    while (start < length) {
      let at = start
      let fields = 0
      let innerLines = 0
      let isBroken = false
      let hasStrayQuote = false
      for (;;) {
        let fieldStart = at
        let fieldStop: number
        if (bytes[at] === QUOTE) {
          fieldStart = ++at
          for (;;) {
            const byte = bytes[at]
            if (byte === QUOTE) {
              if (at + 1 >= length && !isLast) return start
              if (bytes[at + 1] !== QUOTE) break
              at += 2
            } else if (byte === LF) {
              if (at >= length) break
              innerLines++
              at++
            } else {
              if (byte === CR && bytes[at + 1] !== LF) innerLines++
              at++
            }
          }
          fieldStop = at
          if (at >= length) {
            if (!isLast) return start
            isBroken = true
          } else {
            at++
            for (; ; at++) {
              const meaning = meanings[bytes[at] as number]
              if (meaning === IS_DELIMITER || meaning === IS_LINE_END) break
              isBroken = true
            }
          }
        } else {
          for (;;) {
            const meaning = meanings[bytes[at] as number]
            if (meaning !== 0) {
              if (meaning !== IS_QUOTE) break
              hasStrayQuote = true
            }
            at++
          }
          fieldStop = at
        }
        if (fields < MAX_COLUMNS) {
          starts[fields] = fieldStart
          stops[fields] = fieldStop
        }
        fields++
        if (bytes[at] !== delimiter) break
        at++
      }
      // A `\r` may be the first of two or three bytes.
      if (!isLast && at + (bytes[at] === CR ? 2 : 0) >= length) return start
      this.start = start
      this.stop = at
      this.fields = fields
      this.hasStrayQuote = hasStrayQuote
      this.isMultiline = innerLines > 0
      start = this.#lineEnd(at)
      this.flaw = isBroken ? 'quote' : null
      if (at > this.#checkedUntil || at - this.start > MAX_ROW_BYTES) this.#checkRecord()
      this.#onRecord(this)
      this.line += innerLines + 1
    }
    return start
  }

  /** Gives where the next record begins. */
  #lineEnd(at: number): number {
    const { bytes } = this
    const length = this.#length
    let next = at + 1
    if (at >= length) {
      this.lineEnd = ''
      next = length
    } else if (bytes[at] === LF) this.lineEnd = '\n'
    else if (bytes[at + 1] === LF && at + 1 < length) {
      this.lineEnd = '\r\n'
      next = at + 2
    } else if (bytes[at + 1] === CR && bytes[at + 2] === LF && at + 2 < length) {
      this.lineEnd = '\r\r\n'
      next = at + 3
    } else this.lineEnd = '\r'
    this.next = next
    return next
  }

  #checkRecord() {
    const record = this.bytes.subarray(this.start, this.stop)
    if (record.length > MAX_ROW_BYTES) this.flaw = 'long'
    else if (!isUtf8(record)) this.flaw = 'encoding'
    else if (record.includes(0)) this.flaw = 'binary'
  }

  /** Reads on to the end of a record that is too long, byte by byte, without keeping it. */
  #skip(from: number, isLast: boolean): number {
    const { bytes } = this
    const skipped = this.#skipped as Skipped
    const length = this.#length
    let at = from
    for (; at < length; at++) {
      const byte = bytes[at] as number
      if (skipped.state === 'quoted') {
        if (byte === QUOTE) skipped.state = 'closed'
        else if (byte === LF || (byte === CR && bytes[at + 1] !== LF)) this.line++
      } else if (byte === QUOTE && skipped.state !== 'plain') skipped.state = 'quoted'
      else if (byte === this.#delimiter) skipped.state = 'fieldStart'
      else if (byte === LF || byte === CR) {
        if (byte === CR && at + 2 >= length && !isLast) return at
        break
      } else skipped.state = 'plain'
    }
    if (at >= length && !isLast) return at
    this.flaw = 'long'
    const next = this.#lineEnd(at)
    this.#onRecord(this)
    this.#skipped = undefined
    this.line++
    return next
  }

  #prefixFrom(start: number, stop: number) {
    return this.bytes.toString('utf8', start, Math.min(stop, start + PREFIX_BYTES))
  }
}
